"""The addresses that answers carry."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from starlette.requests import Request

from core.models import Static
from core.settings import Settings

BASE: Final = "/api/v1"
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Links:
    origin: str
    """Scheme and host that the client used."""
    public_url: str
    secret: bytes

    def api(self, path: str) -> str:
        return f"{self.origin}{BASE}{path}"

    def media(self, path: str) -> str:
        return self.api(f"/media/{quote(path, safe='/')}")

    def match(self, match_id: int) -> str:
        return self.api(f"/matches/{match_id}/")

    def session(self, session_id: int) -> str:
        return self.api(f"/crawling/sessions/{session_id}/")

    def batches(self, session_id: int) -> str:
        return self.api(f"/crawling/sessions/{session_id}/batches/")

    def batch(self, batch_id: int) -> str:
        return self.api(f"/crawling/batches/{batch_id}/")

    def static(self, static: Static) -> str:
        return f"{self.public_url}/static/{static.id},{static_hash(self.secret, static.id, static.key)}"


def static_hash(secret: bytes, static_id: int, key: str) -> str:
    """The part of a static address that nobody can guess: 80 bits, in hex."""
    return hmac.new(secret, f"static/{static_id}/{key}".encode(), hashlib.sha256).hexdigest()[:20]


def links_of(request: Request, settings: Settings) -> Links:
    return Links(origin(request.scope["scheme"], request.headers, settings.public_url), settings.public_url, settings.secret)


def origin(scheme: str, headers: Mapping[str, str], public_url: str) -> str:
    """`scheme://host` as the client sees this server: a proxy's X-Forwarded-Proto and -Host (the first of a list), else what was asked
    for; the public URL where that is no host."""
    host = _first(headers.get("x-forwarded-host")) or headers.get("host", "")
    forwarded = _first(headers.get("x-forwarded-proto")).lower()
    if not _HOST.fullmatch(host):
        return public_url
    return f"{forwarded if forwarded in ('http', 'https') else scheme}://{host}"


def _first(value: str | None) -> str:
    return (value or "").partition(",")[0].strip()
