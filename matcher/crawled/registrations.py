"""What was registered is looked for in everything that was crawled before.

The database says what is still to be looked for (`scanned_version` of each account), so a matcher that dies here loses nothing; whoever
comes next begins with the first registration that is not done. The registrar commits, then this reads the files; the writer of crawled
pictures commits, then reads the versions: one of them always sees the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Final, TypeVar
from uuid import uuid4

import msgspec
import structlog
from structlog.contextvars import bound_contextvars

from core import leases, telemetry
from core.errors import FiligraneError
from core.events import SIGHTINGS_PER_MESSAGE, ImageFound, MediaChanged, Sighting
from core.leases import Held
from core.repo import crawled
from core.repo.matches import MatchDraft
from core.services import Services
from matcher.copies.features import Fingerprint
from matcher.copies.verdict import judge
from matcher.crawled.library import CrawledLibrary, Opened, events_of
from matcher.decode import Decoders
from matcher.member import TRIES, Stopped, patiently
from matcher.pipeline import CRAWL_MODEL, Pipeline, Source
from matcher.reading import is_away, stored_bytes
from matcher.recording import record
from matcher.registry import Registry
from matcher.spreading import features

LOOP: Final = "registrations"
_LEASE_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 1.0
_AT_ONCE: Final = 32
_CANDIDATES: Final = 10_000
_MISSES: Final = 50
"""So many candidates in a row that are no copies, and the rest is none either."""

_PAGES_BYTES: Final = 500_000
"""Of one message."""

T = TypeVar("T")
log = structlog.get_logger()
_SCANNED: Final = telemetry.counter(
    "filigrane_matcher_scanned", "Registered pictures that were looked for in the crawled ones, by what became of them.", ["outcome"]
)
scan_seconds: Final = telemetry.histogram("filigrane_matcher_scan_seconds", "Looking for one registered picture in the crawled ones.")


def run(
    services: Services, registry: Registry, pipeline: Pipeline, library: CrawledLibrary, decoders: Decoders, stop: threading.Event
) -> None:
    """Works until `stop` is set."""
    registrations = Registrations(services, registry, pipeline, library, decoders, stop)
    with suppress(Stopped):
        while True:
            if not registrations.turn():
                stop.wait(_LOOK_SECONDS)


class Registrations:
    """Used by one thread."""

    def __init__(
        self,
        services: Services,
        registry: Registry,
        pipeline: Pipeline,
        library: CrawledLibrary,
        decoders: Decoders,
        stop: threading.Event,
    ) -> None:
        self._services = services
        self._registry = registry
        self._pipeline = pipeline
        self._library = library
        self._decoders = decoders
        self._stop = stop
        self._holder = f"matcher-{uuid4().hex}"

    def turn(self) -> int:
        """Looks for some of what each account registered since; how many pictures that were. Raises Stopped."""
        return sum(self._account(account) for account in self._patiently(self._behind))

    def _behind(self) -> list[int]:
        with self._services.database.read() as tx:
            return crawled.behind(tx)

    def _account(self, account: int) -> int:
        """The oldest registrations of an account that were not looked for, unless another matcher is at them."""
        held = self._patiently(partial(self._lease, account))
        if held is None:
            return 0
        version, changes = self._patiently(partial(self._unscanned, account))
        files = self._patiently(partial(self._library.visible, account))  # after the registrations were read
        for change in changes:
            self._picture(change, files)
            if self._patiently(partial(self._lease, account)) is None:
                return 0  # another has it by now, and begins with what is not marked
        self._patiently(partial(self._finish, held, account, version))
        return len(changes)

    def _lease(self, account: int) -> Held | None:
        """Takes or keeps it."""
        now = self._services.clock.now()
        with self._services.database.write() as tx:
            return leases.acquire(tx, leases.of_job(LOOP, account), self._holder, _LEASE_SECONDS, now)

    def _unscanned(self, account: int) -> tuple[int, list[MediaChanged]]:
        with self._services.database.read() as tx:
            return crawled.unscanned(tx, account, _AT_ONCE)

    def _finish(self, held: Held, account: int, version: int) -> None:
        with self._services.database.write() as tx:
            crawled.mark_scanned(tx, account, version)
            leases.release(tx, held)

    def _picture(self, change: MediaChanged, files: Sequence[Opened]) -> None:
        """One that fails for what is in it holds up no other. Raises Stopped."""
        with bound_contextvars(account=change.account, picture=change.picture):
            for tries in range(1, TRIES + 1):
                try:
                    with scan_seconds.time():
                        found = self._patiently(partial(self._scan, change, files))
                    _SCANNED.labels("found" if found else "nothing").inc()
                    log.info("crawled.scanned", matches=found)
                    return
                except Stopped:
                    raise
                except Exception:
                    log.exception("crawled.scan_failed", tries=tries)
            _SCANNED.labels("failed").inc()

    def _scan(self, change: MediaChanged, files: Sequence[Opened]) -> int:
        """How many matches there are. Raises Unavailable."""
        self._registry.catch_up(change.account, change.version)
        look = self._matched if self._registry.shard.alone else self._spread
        try:
            print_ = self._registry.fingerprint(change.picture)
        except KeyError:  # deleted, or its fingerprint is unreadable, which the registry has said
            return 0
        count = misses = 0
        for candidate in self._library.candidates(files, print_, _CANDIDATES):
            found = look(events_of(files, candidate.sha256, change.version), change.picture, print_)
            count, misses = count + found, 0 if found else misses + 1
            if misses == _MISSES or self._stop.is_set():
                break
        return count

    def _matched(self, events: Sequence[ImageFound], picture: int, print_: Fingerprint) -> int:
        """How many matches of the registered picture the pipeline finds in one that was crawled by these sessions, as if just now."""
        drafts = [draft for event in events for draft in self._matches(event) if draft.picture_id == picture]
        record(self._services, drafts)
        return len(drafts)

    def _spread(self, events: Sequence[ImageFound], picture: int, print_: Fingerprint) -> int:
        """Tells the shards of it, one of which holds the registered picture; in how many of the events it is."""
        found = [(event, query) for event in events if (query := self._readable(self._source(event).fingerprint, event)) is not None]
        self._services.bus.publish([features(piece, query) for event, query in found for piece in pieces(event)])
        verdicts = [judge(print_, query, CRAWL_MODEL, 1) for _, query in found[:1]]
        return sum(len(found) for verdict in verdicts if verdict is not None and verdict.name == "copy")

    def _matches(self, event: ImageFound) -> list[MatchDraft]:
        return self._readable(partial(self._pipeline.matches, event, self._source(event)), event) or []

    def _readable(self, work: Callable[[], T], event: ImageFound) -> T | None:
        """None where the picture cannot be read."""
        try:
            return work()
        except FiligraneError as error:
            if is_away(error):
                raise
            log.warning("crawled.picture_unreadable", session=event.session, sha256=event.sha256, code=error.code, reason=error.details)
            return None

    def _source(self, event: ImageFound) -> Source:
        data = cache(partial(stored_bytes, self._services, event))
        return Source(lambda: self._decoders.fingerprint(data()), lambda: self._decoders.pixels(data()))

    def _patiently(self, work: Callable[[], T]) -> T:
        return patiently(work, self._stop, LOOP)


def pieces(event: ImageFound) -> Iterator[ImageFound]:
    """The message with some of its pages each time, so that it stays well under a megabyte however long these are."""
    some: list[Sighting] = []
    size = 0
    for sighting in event.sightings:
        length = len(msgspec.json.encode(sighting))
        if some and (len(some) == SIGHTINGS_PER_MESSAGE or size + length > _PAGES_BYTES):
            yield msgspec.structs.replace(event, sightings=tuple(some))
            some, size = [], 0
        some.append(sighting)
        size += length
    yield msgspec.structs.replace(event, sightings=tuple(some))
