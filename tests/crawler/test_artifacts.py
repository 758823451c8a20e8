"""A joined artifact is proven by its segments."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime

import pytest

from core.errors import Corrupt
from core.models import Segment
from core.services import Services
from crawler.artifacts import proven_digest

SIZES = (1, 3_000_000, 1 << 20, 700)


@pytest.fixture
def parts() -> list[bytes]:
    return [os.urandom(size) for size in SIZES]


def rows(parts: list[bytes]) -> list[Segment]:
    now = datetime.now(UTC)
    return [
        Segment(session_id=1, cycle=1, kind="tar", seq=seq, epoch=1, key="", length=len(part), sha256=_sha256(part), stored=now)
        for seq, part in enumerate(parts)
    ]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("tail", [b"", bytes(1024)])
def test_a_whole_artifact(tail: bytes, parts: list[bytes], services: Services) -> None:
    whole = b"".join(parts) + tail
    services.store.put("joined", whole)
    assert proven_digest(services.store, "joined", rows(parts)) == _sha256(whole)


@pytest.mark.parametrize("seq", range(len(SIZES)))
def test_a_changed_byte(seq: int, parts: list[bytes], services: Services) -> None:
    damaged = [bytes([part[0] ^ 1]) + part[1:] if number == seq else part for number, part in enumerate(parts)]
    services.store.put("joined", b"".join(damaged))
    with pytest.raises(Corrupt):
        proven_digest(services.store, "joined", rows(parts))


def test_an_end_too_early(parts: list[bytes], services: Services) -> None:
    services.store.put("joined", b"".join(parts)[:-1])
    with pytest.raises(Corrupt):
        proven_digest(services.store, "joined", rows(parts))
