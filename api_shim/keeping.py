"""Files that are kept for a while under addresses that nobody can guess."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

from core.services import Services

_SUFFIXES: Final = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/gif": ".gif", "image/tiff": ".tiff"}


def nonce() -> str:
    return secrets.token_hex(16)


def suffix(content_type: str) -> str:
    return _SUFFIXES.get(content_type, "")


def expiry(services: Services) -> datetime:
    """When what is kept from now on is over."""
    return services.clock.now() + timedelta(hours=services.settings.upload_hours)


def shown(expires: datetime) -> str:
    """As answers say it: UTC, to the second."""
    return expires.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
