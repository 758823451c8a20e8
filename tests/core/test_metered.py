"""Calls at the seams are timed and their errors counted; the parts stay what they are."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from core.bus import Bus
from core.bus.embedded import EmbeddedBus
from core.database import Database
from core.errors import ObjectMissing, Unavailable
from core.metered import CALLS, metered
from core.objectstore import ObjectStore
from core.services import Services


def count(part: str, call: str) -> float:
    return REGISTRY.get_sample_value("filigrane_part_seconds_count", {"part": part, "call": call}) or 0.0


def errors(part: str, call: str, code: str) -> float:
    return REGISTRY.get_sample_value("filigrane_part_errors_total", {"part": part, "call": call, "code": code}) or 0.0


def test_every_kind_of_call_counts_once(services: Services) -> None:
    calls = [("database", "write"), ("store", "put"), ("store", "list"), ("bus", "lag")]
    before = [count(*call) for call in calls]
    with services.database.write():
        pass
    services.store.put("queries/a", b"abc")
    assert [info.key for info in services.store.list("queries/")] == ["queries/a"]
    services.bus.lag("images", "g")
    assert [count(*call) - was for call, was in zip(calls, before, strict=True)] == [1, 1, 1, 1]
    assert isinstance(services.bus, EmbeddedBus)


def test_only_what_was_not_answered_is_an_error(services: Services) -> None:
    with pytest.raises(ObjectMissing):
        services.store.get("queries/none")
    assert errors("store", "get", "object_missing") == 0
    before = errors("database", "read", "test_gone")
    with pytest.raises(Unavailable), services.database.read():
        raise Unavailable("gone", code="test_gone")
    assert errors("database", "read", "test_gone") == before + 1


def test_what_is_metered_exists() -> None:
    for part, seam in (("database", Database), ("store", ObjectStore), ("bus", Bus)):
        assert all(callable(getattr(seam, call)) for call in CALLS[part])


def test_a_context_that_fails_is_rolled_back_as_ever(services: Services) -> None:
    database = metered("database", Database(services.database.url))
    with pytest.raises(KeyError), database.write():
        raise KeyError("x")
    database.close()
