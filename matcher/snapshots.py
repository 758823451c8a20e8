"""Snapshots of a registry in the object store, so that a matcher that starts need not read every fingerprint.

Two objects each: the index's file, then what belongs to it (a small one with the file's length and checksum, put last: without it the file
is none). A snapshot is a cache. One that is cut, damaged, or of another version is told of and left out for the one before it; what it
says of an account is compared with the database before it is used (`Registry`).
"""

from __future__ import annotations

import secrets
import tempfile
import threading
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import structlog

from core import leases, telemetry
from core.database import Database
from core.errors import Corrupt, ObjectMissing, Unavailable
from core.objectstore import ObjectStore
from core.services import Services
from core.shards import Shard
from matcher.copies.index import CopyIndex
from matcher.copies.snapshot import SnapshotInvalid
from matcher.marks import Marks
from matcher.registry import Registry, State

PREFIX: Final = "registry/"
KEPT: Final = 2
"""Of a shard: the newest, and the one before it, should that be damaged."""
FORGOTTEN: Final = timedelta(days=7)
"""After so long what is left of other numbers of shards goes too."""
CHANGES: Final = 1_000
PAUSE: Final = timedelta(minutes=10)
"""A snapshot is written after so many changes, or after this time where there was any."""
_LOOK_SECONDS: Final = 5.0
_LEASE_SECONDS: Final = 900.0
_MAGIC: Final = b"FGR2"
_CHUNK: Final = 1 << 20

log = structlog.get_logger()
_SNAPSHOTS: Final = telemetry.counter(
    "filigrane_matcher_snapshots", "Snapshots of the registry: written, loaded, or left out because they were damaged.", ["outcome"]
)


class _State(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """`file`: key of the index; `length`, `crc`: of it, in bytes and CRC-32."""

    file: str
    length: int
    crc: int
    shard: tuple[int, int]
    versions: dict[int, int]
    marks: dict[int, Marks]


class _Unusable(Exception):
    """Not a snapshot that this program reads; the message says why."""


def write(services: Services, registry: Registry) -> str:
    """Stores what the registry holds; the key. Raises Unavailable, OSError (no room on the disk)."""
    state, copies = registry.snapshot()
    name = f"{PREFIX}{registry.shard}/{_stamp(services.clock.now())}-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(dir=services.settings.data, prefix="snapshot-") as folder:
        path = Path(folder) / "index"
        copies.save(path)
        length, crc = _measured(path)
        services.store.put(f"{name}/index", path)
    body = msgspec.msgpack.encode(_State(f"{name}/index", length, crc, registry.shard, state.versions, state.marks))
    services.store.put(f"{name}/state", _MAGIC + zlib.crc32(body).to_bytes(4, "big") + body)
    _SNAPSHOTS.labels("written").inc()
    log.info("registry.snapshot_written", key=name, bytes=length, pictures=len(copies))
    return name


def load(services: Services, shard: Shard) -> Registry:
    """A registry that begins with the newest snapshot that is whole, or with nothing. Raises Unavailable."""
    for key in _states(services.store, shard):
        try:
            registry = _loaded(services, shard, key)
        except (_Unusable, SnapshotInvalid, ObjectMissing, Corrupt, OSError) as error:
            _SNAPSHOTS.labels("left out").inc()
            log.error("registry.snapshot_left_out", key=key, reason=str(error))
            continue
        _SNAPSHOTS.labels("loaded").inc()
        log.info("registry.snapshot_loaded", key=key, pictures=len(registry))
        return registry
    return Registry(services, shard)


def sweep(store: ObjectStore, shard: Shard, now: datetime) -> int:
    """Removes all but the newest of the shard, and what is old of any; returns how many objects."""
    keep = {_folder(key) for key in _states(store, shard)[:KEPT]}
    newest, forgotten = max(keep, default=""), _stamp(now - FORGOTTEN)
    mine = f"{PREFIX}{shard}/"
    gone = [
        info.key
        for info in store.list(PREFIX)
        if _folder(info.key) not in keep and (_written(info.key) < forgotten or (info.key.startswith(mine) and info.key < newest))
    ]
    store.delete(gone)
    return len(gone)


def run(services: Services, registry: Registry, stop: threading.Event) -> None:
    """Writes snapshots until `stop` is set; of all matchers that hold the same one at a time does."""
    writer = Writer(services, registry)
    while not stop.wait(_LOOK_SECONDS):
        try:
            writer.look()
        except (Unavailable, OSError) as error:  # the next look is another try
            log.warning("registry.snapshot_failed", reason=str(error))


class Writer:
    """Decides when a snapshot is due; used by one thread."""

    def __init__(self, services: Services, registry: Registry) -> None:
        self._services = services
        self._registry = registry
        self._name = f"registry-{secrets.token_hex(8)}"
        self._written = registry.changes
        self._looked = services.clock.now()

    def look(self) -> bool:
        """Writes one if it is due and nobody else does; whether it did. Raises Unavailable, OSError."""
        changes, now = self._registry.changes - self._written, self._services.clock.now()
        if changes < CHANGES and not (changes and now - self._looked >= PAUSE):
            return False
        self._written, self._looked = self._registry.changes, now
        with _Lease(self._services, leases.of_job("registry", self._registry.shard), self._name) as mine:
            if not mine or self._is_recent(now):
                return False
            self._registry.catch_up_all()
            write(self._services, self._registry)
            sweep(self._services.store, self._registry.shard, now)
        return True

    def _is_recent(self, now: datetime) -> bool:
        """Whether another one wrote one lately, which holds what we would write but for what changed since."""
        newest = next(iter(_states(self._services.store, self._registry.shard)), None)
        return newest is not None and _written(newest) > _stamp(now - PAUSE / 2)


class _Lease:
    """Held for as long as the context lasts, if it was free; a holder that died is waited out."""

    def __init__(self, services: Services, name: str, holder: str) -> None:
        self._database: Database = services.database
        self._clock = services.clock
        self._name, self._holder = name, holder
        self._held: leases.Held | None = None

    def __enter__(self) -> bool:
        with self._database.write() as tx:
            self._held = leases.acquire(tx, self._name, self._holder, _LEASE_SECONDS, self._clock.now())
        return self._held is not None

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            with self._database.write() as tx:
                leases.release(tx, self._held)


def _stamp(time: datetime) -> str:
    """Sorts as the time does."""
    return f"{time:%Y%m%dT%H%M%S%f}"


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _written(key: str) -> str:
    """When the snapshot was, as `_stamp` says it."""
    return _folder(key).rpartition("/")[2].partition("-")[0]


def _states(store: ObjectStore, shard: Shard) -> list[str]:
    """Keys of the shard's whole snapshots, the newest first."""
    return sorted((info.key for info in store.list(f"{PREFIX}{shard}/") if info.key.endswith("/state")), reverse=True)


def _loaded(services: Services, shard: Shard, key: str) -> Registry:
    state = _read(services.store.get(key))
    if state.shard != shard:
        raise _Unusable(f"it is of shard {Shard(*state.shard)}")
    with tempfile.TemporaryDirectory(dir=services.settings.data, prefix="snapshot-") as folder:
        path = Path(folder) / "index"
        with path.open("wb") as file:
            for chunk in services.store.stream(state.file):
                file.write(chunk)
        if _measured(path) != (state.length, state.crc):
            raise _Unusable("the index is cut or damaged")
        # mapped: the file has no name any more, and goes with the registry; its checksum was just looked at
        copies: CopyIndex[int] = CopyIndex.load(path, folder=services.settings.data, verify=False, keep=False)
    return Registry(services, shard, copies, State(state.versions, state.marks))


def _read(data: bytes) -> _State:
    if data[:4] != _MAGIC:
        raise _Unusable("it is none, or one of another version")
    if zlib.crc32(data[8:]).to_bytes(4, "big") != data[4:8]:
        raise _Unusable("its checksum does not fit")
    try:
        return msgspec.msgpack.decode(data[8:], type=_State)
    except msgspec.MsgspecError as error:
        raise _Unusable(f"it cannot be read: {error}") from error


def _measured(path: Path) -> tuple[int, int]:
    """Length and CRC-32 of the file."""
    length = crc = 0
    for chunk in _chunks(path):
        length, crc = length + len(chunk), zlib.crc32(chunk, crc)
    return length, crc


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
