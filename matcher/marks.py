"""The keys of registered pictures, as they are looked for: each with the small picture, which all keys of a picture share."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, NamedTuple, TypeVar

import structlog

from core import telemetry
from core.errors import Corrupt, ObjectMissing
from core.objectstore import ObjectStore
from matcher.recent import Recent
from matcher.spool import Spool
from matcher.watermark.errors import RegistrationInvalid
from matcher.watermark.registration import Registration
from matcher.watermark.small import check_small

T = TypeVar("T")

_READERS: Final = 8
_KEPT: Final = 64 << 20
"""Bytes of registrations that are kept as objects, about."""
_KEY_BYTES: Final = 500

log = structlog.get_logger()
unreadable: Final = telemetry.counter(
    "filigrane_matcher_unreadable_objects", "Stored fingerprints or registrations that could not be read", ["kind"]
)


class Marks(NamedTuple):
    """Object keys of a picture's small picture (None: each registration has its own, as older versions stored them), and of its
    registrations that have a key."""

    small: str | None
    keys: tuple[str, ...]


def stored(store: ObjectStore, key: str, small: str | None) -> Registration:
    """One registration from its object and that of the small picture, if it has one. Raises ObjectMissing, Corrupt, Unavailable."""
    try:
        found = Registration.from_bytes(store.get(key))
    except RegistrationInvalid as error:
        raise Corrupt(f"a stored registration cannot be read: {error.details}") from error
    return replace(found, small=store.get(small)) if found.transactional and small is not None else found


class Keyed:
    """Reads registrations from the store, and keeps those of the pictures that were candidates lately. Thread-safe."""

    def __init__(self, store: ObjectStore, spool: Spool) -> None:
        self._store = store
        self._spool = spool
        self._recent: Recent[_Entry] = Recent(_KEPT, _weight)

    def of(self, picture: int, marks: Marks) -> list[Registration]:
        """Those of a picture that can be read. Raises Unavailable."""
        known = self._recent.get(picture)
        if known is None or known.marks is not marks:
            known = _Entry(marks, self._read(marks))
            self._recent.put(picture, known)
        return known.registrations

    def _read(self, marks: Marks) -> list[Registration]:
        small = self._checked(marks.small, _readable) if marks.small is not None else None
        if len(marks.keys) == 1:
            found = [self._checked(marks.keys[0], Registration.from_bytes)]
        else:
            with ThreadPoolExecutor(_READERS, thread_name_prefix="registrations") as threads:
                found = list(threads.map(lambda key: self._checked(key, Registration.from_bytes), marks.keys))
        whole = [replace(one, small=small) if one.transactional and small else one for one in found if one is not None]
        return [one for one in whole if not one.transactional]

    def _checked(self, key: str, parse: Callable[[bytes], T]) -> T | None:
        """What is gone or damaged is told of, and left out: the others are still found."""
        try:
            return parse(self._spool.get(key, lambda: self._store.get(key)))
        except (ObjectMissing, Corrupt, RegistrationInvalid) as error:
            unreadable.labels("registration").inc()
            log.error("registry.registration_unreadable", key=key, reason=str(error))
            return None


def _readable(small: bytes) -> bytes:
    """Raises RegistrationInvalid: whoever looked for a mark with it would fail, and take the other candidates of a picture along."""
    check_small(small)
    return small


class _Entry(NamedTuple):
    marks: Marks
    registrations: list[Registration]


def _weight(entry: _Entry) -> int:
    """Bytes, about; the small picture is there once."""
    return len(entry.registrations) * _KEY_BYTES + max((len(one.small) for one in entry.registrations), default=0)
