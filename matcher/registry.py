"""What each account has registered, in memory: an index of copies, and the keys of each picture.

The database is the truth. A message names the account's version that its sender read; before it is worked on, every later change is read.
What the `media` topic tells only says whose changes to read next, so a missed or repeated message changes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import structlog

from core import telemetry
from core.errors import Corrupt, NotFound, ObjectMissing
from core.events import Key, MediaChanged
from core.repo import accounts, media
from core.services import Services
from matcher.copies.features import Fingerprint, FingerprintInvalid
from matcher.copies.index import CopyIndex
from matcher.watermark.keys import Registration, RegistrationInvalid

log = structlog.get_logger()
_UNREADABLE: Final = telemetry.counter(
    "filigrane_matcher_unreadable_objects", "Stored fingerprints or registrations that could not be read", ["kind"]
)


class AccountRegistry:
    """One account's registered pictures, by picture id, as of `version`."""

    def __init__(self, account: int) -> None:
        self.account = account
        self.version = 0
        self.copies: CopyIndex[int] = CopyIndex()
        self.keys: dict[int, tuple[Key, ...]] = {}
        self.changing = threading.Lock()


class Registry:
    """Every account's registry, loaded when first asked for. Thread-safe."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._accounts: dict[int, AccountRegistry] = {}
        self._lock = threading.Lock()
        self.registration = lru_cache(4096)(self._registration)
        """The registration stored under an object key; None where it is gone or cannot be read."""

    def of(self, account: int, version: int) -> AccountRegistry:
        """The account's registry, at least as new as `version`. Raises Unavailable."""
        with self._lock:
            known = self._accounts.setdefault(account, AccountRegistry(account))
        with known.changing:
            if known.version < version:
                self._catch_up(known)
        return known

    def everyone(self) -> list[AccountRegistry]:
        """Every account's registry, up to date: for shared sessions."""
        with self._services.database.read() as tx:
            versions = accounts.registry_versions(tx)
        return [self.of(account, version) for account, version in versions.items() if version > 0]

    def heard(self, change: MediaChanged) -> None:
        """A message of the `media` topic. Accounts that nobody asked for yet are read when somebody does."""
        with self._lock:
            loaded = change.account in self._accounts
        if loaded:
            self.of(change.account, change.version)

    def _catch_up(self, known: AccountRegistry) -> None:
        with self._services.database.read() as tx:
            try:
                version = accounts.by_id(tx, known.account).registry_version
            except NotFound:
                return
            changes = media.changes(tx, known.account, known.version)
        self._apply(known, changes)
        known.version = version

    def _apply(self, known: AccountRegistry, changes: Sequence[MediaChanged]) -> None:
        for change in changes:
            known.keys.pop(change.picture, None)
            print_ = None if change.deleted else self._fingerprint(change)
            if print_ is None:
                known.copies.remove(change.picture)
                continue
            known.keys[change.picture] = change.keys
            known.copies.add(change.picture, print_)

    def _fingerprint(self, change: MediaChanged) -> Fingerprint | None:
        try:
            return Fingerprint.from_bytes(self._services.store.get(change.fingerprint_key))
        except (ObjectMissing, Corrupt, FingerprintInvalid) as error:
            # deleted after the rows were read, or damaged: the others are still found
            _UNREADABLE.labels("fingerprint").inc()
            log.error("registry.fingerprint_unreadable", picture=change.picture, key=change.fingerprint_key, reason=str(error))
            return None

    def _registration(self, key: str) -> Registration | None:
        try:
            return Registration.from_bytes(self._services.store.get(key))
        except (ObjectMissing, Corrupt, RegistrationInvalid) as error:
            _UNREADABLE.labels("registration").inc()
            log.error("registry.registration_unreadable", key=key, reason=str(error))
            return None
