"""What `filigrane doctor` looks at: everything that a role touches, one finding a check, and what to do about it.

It leaves nothing behind: the probe objects are deleted, the probe message lies on a topic of its own.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal, NamedTuple

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.orm import Session

import core
from core import highwater, scrub
from core.bus import Bus, Outgoing
from core.database import Database
from core.disk import private_folder
from core.errors import FiligraneError, Unavailable
from core.events import IMAGES
from core.objectstore import ObjectStore
from core.repo import figures, healing
from core.services import open_bus, open_database, open_store
from core.settings import Settings
from core.shards import lags

State = Literal["ok", "warning", "failed"]
PATIENCE: Final = 20.0
"""Seconds for one check."""
TOPIC: Final = "doctor"
PREFIX: Final = "doctor/"
_ROOM_LOW: Final = 2 << 30
_ROOM_NONE: Final = 100 << 20
_CLOCK_LOW: Final = 1.0
_CLOCK_BAD: Final = 5.0
"""Seconds. Leases are granted for 30, by the clocks of those who ask."""
_SCHEDULER_SILENT: Final = timedelta(minutes=5)
_POSTGRES: Final = {
    "fsync": ("on", "what was acknowledged is lost when the machine loses its power"),
    "full_page_writes": ("on", "pages may be torn when the machine loses its power"),
    "synchronous_commit": (("on", "local", "remote_write", "remote_apply"), "the last acknowledged rows are lost when the server dies"),
}


class Finding(NamedTuple):
    check: str
    state: State
    said: str
    advice: str = ""


@dataclass
class Patient:
    """What the checks look at; parts that could not be opened are None."""

    settings: Settings
    database: Database | None = None
    """Only where its schema is this program's."""
    store: ObjectStore | None = None
    """Only where it works."""
    bus: Bus | None = None
    opened: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        for close in reversed(self.opened):
            close()


Check = Callable[[Patient], Iterator[Finding]]


def examine(settings: Settings, patience: float = PATIENCE) -> Iterator[Finding]:
    """Everything, one check after the other; each within `patience` seconds."""
    patient = Patient(settings)
    try:
        for name, check, advice in CHECKS:
            yield from _bounded(name, check, advice, patient, patience)
    finally:
        patient.close()


def exit_code(findings: list[Finding]) -> int:
    """0 all is well, 1 something is to be looked after, 2 something does not work."""
    states = {finding.state for finding in findings}
    return 2 if "failed" in states else 1 if "warning" in states else 0


def _bounded(name: str, check: Check, advice: str, patient: Patient, patience: float) -> list[Finding]:
    future: Future[list[Finding]] = Future()

    def run() -> None:
        try:
            future.set_result(list(check(patient)))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=f"doctor {name}", daemon=True).start()
    try:
        return future.result(patience)
    except FutureTimeout:
        return [Finding(name, "failed", f"does not answer within {patience:g} s", advice)]
    except FiligraneError as error:
        advice = "everything goes on by itself, once there is room" if error.code.endswith("_full") else advice
        return [Finding(name, "failed", scrub.text(f"{error.details} [{error.code}]"), advice)]
    except Exception as error:
        return [Finding(name, "failed", scrub.text(f"{type(error).__name__}: {error}"), advice)]


# --- this machine


def _settings(patient: Patient) -> Iterator[Finding]:
    settings = patient.settings
    given = sorted(name for name, field in Settings.model_fields.items() if getattr(settings, name) != field.default)
    shared = settings.database_url.startswith("postgresql")
    yield Finding("settings", "ok", f"set: {', '.join(given) or 'none'}")
    if shared and (settings.bus_url == "local:" or not settings.store_url.startswith("s3:")):
        advice = "set FILIGRANE_BUS_URL and FILIGRANE_STORE_URL too, unless every role runs on this machine"
        yield Finding("settings", "warning", "the database is shared, bus or object store are this machine's own", advice)
    if settings.allow_networks:
        networks = ", ".join(map(str, settings.allow_networks))
        yield Finding("settings", "warning", f"crawls may reach {networks}", "only where these are to be crawled")


def _data(patient: Patient) -> Iterator[Finding]:
    folder = patient.settings.data
    private_folder(folder)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(b"x")
    room = shutil.disk_usage(folder).free
    state: State = "failed" if room < _ROOM_NONE else "warning" if room < _ROOM_LOW else "ok"
    yield Finding("data folder", state, f"{folder} can be written, {room / 2**30:.1f} GiB free", "" if state == "ok" else "free some space")


# --- the parts


def _database(patient: Patient) -> Iterator[Finding]:
    database = open_database(patient.settings)
    patient.opened.append(database.close)
    with database.read() as tx:
        kind = tx.get_bind().dialect.name
        yield Finding("database", "ok", f"{kind} answers")
        yield (schema := _schema(tx))
        if kind == "postgresql":
            yield from _postgres(tx)
    if schema.state == "ok":
        patient.database = database


def _schema(tx: Session) -> Finding:
    head = ScriptDirectory(str(Path(core.__file__).parent / "migrations")).get_current_head()
    here = MigrationContext.configure(tx.connection()).get_current_revision()
    if here == head:
        return Finding("schema", "ok", f"version {here}")
    if here is None or here < (head or ""):
        return Finding("schema", "warning", f"version {here or 'none'}, not {head} yet", "the next role that starts brings it there")
    return Finding("schema", "failed", f"version {here}, made by a newer program than this one ({head})", "upgrade this program")


def _postgres(tx: Session) -> Iterator[Finding]:
    seconds = abs(float(tx.scalar(text("SELECT extract(epoch FROM clock_timestamp())")) or 0) - time.time())
    yield _clock("database's", seconds)
    for name, (wanted, danger) in _POSTGRES.items():
        value = str(tx.scalar(text(f"SELECT current_setting('{name}')")))
        if value not in (wanted if isinstance(wanted, tuple) else (wanted,)):
            yield Finding("database", "warning", f"{name} is {value}: {danger}", f"set {name} = on in postgresql.conf")


def _clock(whose: str, seconds: float) -> Finding:
    state: State = "failed" if seconds > _CLOCK_BAD else "warning" if seconds > _CLOCK_LOW else "ok"
    return Finding("clock", state, f"{seconds:.2f} s from the {whose}", "" if state == "ok" else "let NTP set the clocks of all machines")


def _store(patient: Patient) -> Iterator[Finding]:
    store = open_store(patient.settings)
    patient.opened.append(store.close)
    name = f"{PREFIX}{secrets.token_hex(8)}"
    keys = [f"{name}/a", f"{name}/b", f"{name}/joined"]
    try:
        started, now = time.monotonic(), time.time()
        info = store.put(keys[0], b"filigrane ")
        took = time.monotonic() - started
        store.put(keys[1], b"doctor")
        store.join(keys[:2], keys[2])
        said = {
            "get": store.get(keys[2]) == b"filigrane doctor",
            "range": store.get_range(keys[2], 10, 6) == b"doctor",
            "list": sorted(found.key for found in store.list(f"{name}/")) == keys,
            "url": bool(store.url(keys[2], timedelta(minutes=1))),
        }
    finally:
        store.delete(keys)
    wrong = [call for call, right in said.items() if not right] + [info.key for info in store.list(f"{name}/")]
    if wrong:
        yield Finding("object store", "failed", f"answers, and wrongly: {wrong}", "use another server; this one loses or changes objects")
        return
    patient.store = store
    yield Finding("object store", "ok", f"put ({1000 * took:.0f} ms), join, get, range, list, url and delete work")
    yield _clock("object store's", max(0.0, abs(info.modified.timestamp() - now) - took - 1.0))  # dates are in whole seconds


def _bus(patient: Patient) -> Iterator[Finding]:
    bus = patient.bus = open_bus(patient.settings)
    patient.opened.append(bus.close)
    with closing(bus.follow(TOPIC, "latest")) as follower:
        probe = secrets.token_hex(16).encode()
        started = time.monotonic()
        bus.publish([Outgoing(TOPIC, "probe", probe)])
        took = time.monotonic() - started
        until = started + PATIENCE / 2
        while not any(message.value == probe for message in follower.poll(1.0)):
            if time.monotonic() > until:
                raise Unavailable("a message was acknowledged and does not come back", code="bus_mute")
    yield Finding("bus", "ok", f"a message went ({1000 * took:.0f} ms) and came back")
    for reader, lag in lags(bus, patient.settings.registry_shards).items():
        whom = "a matcher" if reader == IMAGES else f"the matchers of shard {reader}"
        yield Finding("bus", "ok", f"{lag} messages of pictures wait for {whom}")


# --- what they tell together


def _history(patient: Patient) -> Iterator[Finding]:
    if patient.database is None or patient.store is None:
        return
    now = datetime.now(UTC)
    known = highwater.stored(patient.store)
    if known is None:
        yield Finding("history", "ok", "the store has not seen this database yet")
        return
    if behind := highwater.lost(known, highwater.current(patient.database, now)):
        tables = ", ".join(f"{table} {here} of {high}" for table, (here, high) in sorted(behind.items()))
        advice = "stop every role, then: filigrane doctor --accept-restored"
        yield Finding("history", "failed", f"the database is older than the object store ({tables})", advice)
    else:
        yield Finding("history", "ok", "database and object store belong together")


def _roles(patient: Patient) -> Iterator[Finding]:
    if patient.database is None:
        return
    now = datetime.now(UTC)
    with patient.database.read() as tx:
        waiting = figures.waiting(tx)
        held, alone = figures.holders(tx, now), figures.abandoned(tx, now)
        given_up = len(healing.given_up(tx))
    holders = ", ".join(f"{holder} ({count})" for holder, count in held.items()) or "none"
    yield Finding("crawlers", "ok", f"leases are held by: {holders}")
    if alone:
        yield Finding("crawlers", "warning", f"{alone} running sessions have no crawler at the moment", "start `filigrane crawler`")
    yield from _scheduler(waiting, now)
    if given_up:
        advice = "`filigrane dead list` says why; once their objects can be read: `filigrane dead replay`"
        yield Finding("scheduler", "warning", f"{given_up} pieces were given up: their messages could not be built", advice)


def _scheduler(waiting: figures.Waiting, now: datetime) -> Iterator[Finding]:
    oldest = max((now - since for since in (waiting.oldest_unsent, waiting.oldest_outbox) if since is not None), default=timedelta(0))
    said = f"{waiting.outbox} messages and {waiting.unsent} pieces wait to be sent, the oldest for {oldest.total_seconds():.0f} s"
    if oldest > _SCHEDULER_SILENT:
        yield Finding("scheduler", "warning", said, "start `filigrane scheduler`, or see its log for why the bus does not take them")
    else:
        yield Finding("scheduler", "ok", said)


CHECKS: Final[tuple[tuple[str, Check, str], ...]] = (
    ("settings", _settings, "see docs/settings.md"),
    ("data folder", _data, "FILIGRANE_DATA is a folder that this user can write to"),
    ("database", _database, "check FILIGRANE_DATABASE_URL, that the server runs, and that it lets this user in"),
    ("object store", _store, "check FILIGRANE_STORE_URL and FILIGRANE_S3_ENDPOINT_URL, the credentials, and that the bucket exists"),
    ("bus", _bus, "check FILIGRANE_BUS_URL and FILIGRANE_KAFKA_OPTIONS, and that a broker runs"),
    ("history", _history, "the object operations/highwater can be deleted where database and store do belong together"),
    ("roles", _roles, "see what the database's finding says"),
)
