"""What is registered, in memory: one index of copies for all accounts, and which pictures have keys to be tried.

The database is the truth. A message names the account's version that its sender read; before it is worked on, every later change is read.
What the `media` topic tells only says whose changes to read next, so a missed or repeated message changes nothing. Whole fingerprints and
registrations stay in the object store, those that were used lately on the local disk.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import structlog
from sqlalchemy.orm import Session

from core import telemetry
from core.errors import Corrupt, NotFound, ObjectMissing
from core.events import MediaChanged
from core.monitor import beat, end
from core.repo import accounts, media, pictures
from core.services import Services
from core.shards import WHOLE, Shard
from matcher.copies.features import Fingerprint, FingerprintInvalid
from matcher.copies.index import Candidate, CopyIndex
from matcher.marks import Keyed, Marks, unreadable
from matcher.spool import Spool
from matcher.watermark.registration import Registration

_READERS: Final = 8
_PIECE: Final = 64
"""Fingerprints that are read together."""

LOOP: Final = "registry"
"""Turns with each piece; ended where nothing is read any more."""

log = structlog.get_logger()
_REGISTERED: Final = telemetry.gauge("filigrane_matcher_registered", "Registered pictures that this matcher holds.")
_STRAYS: Final = telemetry.counter(
    "filigrane_matcher_strays", "Pictures in which a snapshot differed from the database: added or removed when it was compared.", ["done"]
)


class State(NamedTuple):
    """What is known of the accounts beside the index: versions by account, and marks by picture."""

    versions: dict[int, int]
    marks: dict[int, Marks]


class Registry:
    """Thread-safe. An account is read from the database when it is first asked for, or was in the snapshot that this began with."""

    def __init__(self, services: Services, shard: Shard = WHOLE, copies: CopyIndex[int] | None = None, state: State | None = None) -> None:
        self.shard = shard
        self._services = services
        self._copies: CopyIndex[int] = copies if copies is not None else CopyIndex(keep=False)
        self._versions, self._marks = state or State({}, {})
        self._unproved = set(self._versions)
        """Accounts of the snapshot that were not compared with the database yet."""
        self._changing: defaultdict[int, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()
        self._spool = Spool(services.settings.data)
        self.changes = 0
        """How many changes were read since this began."""
        self._keyed = Keyed(services.store, self._spool)

    def __len__(self) -> int:
        return len(self._copies)

    def catch_up(self, account: int, version: int) -> None:
        """Afterwards the account's pictures are at least as new as `version`. Raises Unavailable."""
        if self._is_behind(account, version):
            with self._lock:
                changing = self._changing[account]
            with changing:
                if self._is_behind(account, version):
                    self._read(account)

    def catch_up_all(self) -> None:
        """Afterwards every account's pictures are those of now. Raises Unavailable."""
        with self._services.database.read() as tx:
            versions = accounts.registry_versions(tx)
        for account, version in versions.items():
            self.catch_up(account, version)

    def heard(self, change: MediaChanged) -> None:
        """A message of the `media` topic. Accounts that nobody asked for yet are read when somebody does."""
        if change.account in self._versions:
            self.catch_up(change.account, change.version)

    def state(self, account: int | None) -> Hashable:
        """Another value after each change of what the account (None: anyone) has registered."""
        return self.changes if account is None else self._versions.get(account, 0)

    def size(self, account: int | None) -> int:
        """How many pictures of the account (None: of all) are here."""
        return self._copies.count(account)

    def candidates(self, query: Fingerprint, account: int | None) -> list[Candidate[int]]:
        """Pictures of the account (None: of all, each account's as if it were asked alone) that the query may show; `group` is whose."""
        return self._copies.candidates(query, account)

    def similar(self, query: Fingerprint, account: int) -> list[Candidate[int]]:
        """The account's pictures that may be in the query, and then those that only look like it."""
        return self._copies.similar(query, account)

    def fingerprint(self, picture: int) -> Fingerprint:
        """Also of a picture that another shard holds. Raises KeyError: it is not registered any more, or its fingerprint cannot be read.
        Raises Unavailable."""
        if self.shard.holds(picture) and picture not in self._copies:
            raise KeyError(picture)
        print_ = self._checked(picture, lambda: self._spool.get(_spooled(picture), lambda: self._fetch(picture)))
        if print_ is None:
            raise KeyError(picture)
        return print_

    def registrations(self, picture: int) -> list[Registration]:
        """Those of a picture's registrations that have a key, with the small picture that they are looked for with."""
        marks = self._marks.get(picture)
        return self._keyed.of(picture, marks) if marks is not None else []

    def snapshot(self) -> tuple[State, CopyIndex[int]]:
        """To be written: the index is at least as new as the state, from which on changes are read again."""
        return State(dict(self._versions), dict(self._marks)), self._copies

    def _is_behind(self, account: int, version: int) -> bool:
        return self._versions.get(account, 0) < version or account in self._unproved

    def _read(self, account: int) -> None:
        """What changed since it was read last; what a snapshot held is compared with what there is, once."""
        held = self._versions.get(account, 0)
        with self._services.database.read() as tx:
            version = _version(tx, account)
            if held > version:
                log.error("registry.newer_than_the_database", account=account, held=held, version=version)
                held = 0
            changes = media.changes(tx, account, held)
            alive = self._alive(tx, account) if account in self._unproved else None
        self._apply(account, changes)
        strays = self._compare(account, alive) if alive is not None else 0
        self._versions[account] = version
        self._unproved.discard(account)
        self.changes += len(changes) + strays
        _REGISTERED.set(len(self._copies))
        end(LOOP)

    def _alive(self, tx: Session, account: int) -> set[int]:
        return set(filter(self.shard.holds, media.registered(tx, account)))

    def _apply(self, account: int, changes: Sequence[MediaChanged]) -> None:
        mine = [change for change in changes if self.shard.holds(change.picture)]
        with ThreadPoolExecutor(_READERS, thread_name_prefix="fingerprints") as threads:
            for start in range(0, len(mine), _PIECE):
                piece = mine[start : start + _PIECE]
                beat(LOOP)
                for change, print_ in zip(piece, threads.map(self._stored, piece), strict=True):
                    self._put(change, print_)
                if len(mine) > _PIECE and account not in self._unproved:
                    self._versions[account] = max(self._versions.get(account, 0), piece[-1].version - 1)

    def _put(self, change: MediaChanged, print_: Fingerprint | None) -> None:
        self._drop(change.picture, keep=print_ is not None)
        if print_ is not None:
            keys = tuple(key.lmk_key for key in change.keys if key.lmk_key is not None)
            if keys:
                self._marks[change.picture] = Marks(change.small_key, keys)
            self._copies.add(change.picture, print_, change.account)

    def _drop(self, picture: int, *, keep: bool = False) -> None:
        """`keep`: in the index, where it is replaced."""
        self._spool.forget(_spooled(picture))
        self._marks.pop(picture, None)
        if not keep:
            self._copies.remove(picture)

    def _compare(self, account: int, alive: set[int]) -> int:
        """A snapshot may be older than the rows that told of a deletion, or of another past of the database. How many were wrong."""
        held = self._copies.ids(account)
        for picture in held - alive:
            self._drop(picture)
        with self._services.database.read() as tx:
            missing = media.states(tx, sorted(alive - held))
        self._apply(account, missing)
        for done, strays in (("removed", held - alive), ("added", alive - held)):
            if strays:
                _STRAYS.labels(done).inc(len(strays))
                log.warning("registry.snapshot_differs", account=account, done=done, pictures=len(strays))
        return len(held ^ alive)

    def _stored(self, change: MediaChanged) -> Fingerprint | None:
        return None if change.deleted else self._checked(change.picture, lambda: self._services.store.get(change.fingerprint_key))

    def _checked(self, picture: int, get: Callable[[], bytes]) -> Fingerprint | None:
        try:
            return Fingerprint.from_bytes(get())
        except (ObjectMissing, Corrupt, FingerprintInvalid) as error:
            # deleted after the rows were read, or damaged: the others are still found
            unreadable.labels("fingerprint").inc()
            log.error("registry.fingerprint_unreadable", picture=picture, reason=str(error))
            return None

    def _fetch(self, picture: int) -> bytes:
        """Raises KeyError, ObjectMissing, Corrupt, Unavailable."""
        with self._services.database.read() as tx:
            row = pictures.by_ids(tx, [picture])
        if not row or row[0].deleted:
            raise KeyError(picture)
        return self._services.store.get(row[0].fingerprint_key)


def _version(tx: Session, account: int) -> int:
    """0 where there is no such account, and nothing of it."""
    try:
        return accounts.by_id(tx, account).registry_version
    except NotFound:
        return 0


def _spooled(picture: int) -> str:
    return f"fingerprint {picture}"
