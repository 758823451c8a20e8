"""What tests share."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from core.services import Services
from core.settings import Settings


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """The embedded parts in a folder of their own; loopback may be crawled."""
    with Services.open(Settings(data=tmp_path / "data", allow_networks=(ip_network("127.0.0.0/8"),))) as opened:
        yield opened
