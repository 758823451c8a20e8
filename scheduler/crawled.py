"""Files of crawled pictures: the many small ones of the matchers become a few for each session; what is over goes.

Merging swaps rows in one transaction, so a search finds a picture in the old file or in the new one; old objects stay for an hour, for who
has just read the old rows. A run that is cut leaves objects without rows, which are swept.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import accumulate
from typing import Final

import structlog

from core.errors import Corrupt, ObjectMissing
from core.models import CrawledFile
from core.repo import crawled
from core.repo.crawled import FileDraft
from core.services import Services
from core.telemetry import counter
from matcher.crawled.file import PictureFile, PictureFileInvalid, draft, merged

MOST: Final = 32_768
"""Pictures of one file: the memory of a merge is bounded."""
FAN: Final = 8
"""So many files of about one size become one."""
REST: Final = timedelta(hours=1)
"""A session into which nothing came for so long has one file, or full ones."""
GRACE: Final = timedelta(hours=1)
_LOST: Final = timedelta(days=1)
"""What could not be read for so long is given up."""
_ROWS: Final = 16_384
_BYTES: Final = 128 << 20
"""Of fresh files that are merged at once."""
_SESSIONS: Final = 100
_PIECE: Final = 500

log = structlog.get_logger()
_UNREADABLE: Final = counter("filigrane_scheduler_crawled_unreadable", "Times that a file of crawled pictures could not be merged.")


def merge(services: Services) -> Iterator[int]:
    """Yields, after each session, how many files went into one."""
    after = 0
    while rows := _fresh(services, after):
        yield from _merge_fresh(services, rows)
        after = rows[-1].id
    now = services.clock.now()
    with services.database.read() as tx:
        sessions = crawled.crowded(tx, MOST // 2, FAN - 1, now - REST, _SESSIONS)
    for session in sessions:
        with services.database.read() as tx:
            rows = crawled.small_of(tx, session, MOST // 2)
        for group in plan(rows, now):
            yield _merge(services, group, [_read(services, row) for row in group])


def _fresh(services: Services, after: int) -> list[CrawledFile]:
    """The next ones, about as many as fit into the memory of a merge."""
    with services.database.read() as tx:
        rows = crawled.fresh(tx, after, _ROWS)
    ends = accumulate(row.length for row in rows)
    return [row for row, end in zip(rows, ends, strict=True) if end - row.length < _BYTES]


def _merge_fresh(services: Services, rows: Sequence[CrawledFile]) -> Iterator[int]:
    """A matcher's object has parts of many sessions: each is read once, and each session gets a file of its own."""
    objects = {key: _object(services, key) for key in dict.fromkeys(row.key for row in rows)}
    sessions: dict[int, list[CrawledFile]] = {}
    for row in rows:
        sessions.setdefault(row.session_id, []).append(row)
    for group in (group for some in sessions.values() for group in _fitting(some)):
        yield _merge(services, group, [objects[row.key][row.offset : row.offset + row.length] for row in group])


def plan(rows: Sequence[CrawledFile], now: datetime) -> list[list[CrawledFile]]:
    """Which of a session's files become one: `FAN` of about one size, or all that fit together once nothing more comes."""
    if max((row.stored for row in rows), default=now) < now - REST:  # none: its session was deleted since
        return [group for group in _fitting(rows) if len(group) > 1]
    tiers: dict[int, list[CrawledFile]] = {}
    for row in rows:
        tiers.setdefault((max(1, row.pictures).bit_length() - 1) // 3, []).append(row)  # sizes within 8 times
    return [group for tier in tiers.values() if len(tier) >= FAN for group in _fitting(tier) if len(group) > 1]


def _fitting(rows: Sequence[CrawledFile]) -> list[list[CrawledFile]]:
    """In their order, as many as `MOST` pictures are."""
    groups: list[list[CrawledFile]] = [[]]
    for row in rows:
        if groups[-1] and sum(each.pictures for each in groups[-1]) + row.pictures > MOST:
            groups.append([])
        groups[-1].append(row)
    return groups


def _merge(services: Services, rows: Sequence[CrawledFile], parts: Sequence[bytes]) -> int:
    """One file for these; how many went into it."""
    opened = [(row, file) for row, part in zip(rows, parts, strict=True) if (file := _open(services, row, part)) is not None]
    if not opened:
        return 0
    now = services.clock.now()
    days = services.settings.crawled_days
    try:
        body, count = merged([file for _, file in opened], seen_since=now - timedelta(days=days) if days else None)
    except PictureFileInvalid as error:
        return _cannot(rows[0], error)
    new = [_stored(services, rows[0].session_id, body, count, max(row.last_seen for row, _ in opened))] if count else []
    done = services.database.transact(lambda tx: crawled.replace(tx, [row.id for row, _ in opened], new, now))
    return len(opened) if done else 0


def _stored(services: Services, session: int, body: bytes, count: int, last_seen: datetime) -> FileDraft:
    key = f"{crawled.PREFIX}{session}/{uuid.uuid4().hex}"
    services.store.put(key, body)
    return draft(session, key, body, count, last_seen)


def _open(services: Services, row: CrawledFile, part: bytes) -> PictureFile | None:
    """None for what cannot be read: searches do without it already. It is tried again for a day."""
    try:
        if hashlib.sha256(part).hexdigest() != row.sha256:
            raise PictureFileInvalid("other bytes than were stored")
        return PictureFile(memoryview(part))
    except PictureFileInvalid as error:
        _cannot(row, error)
    if row.stored < services.clock.now() - _LOST:
        services.database.transact(partial(crawled.retire, file_ids=[row.id], now=services.clock.now()))
    return None


def _cannot(row: CrawledFile, error: Exception) -> int:
    _UNREADABLE.inc()
    log.error("scheduler.crawled_unreadable", file=row.id, session=row.session_id, key=row.key, error=str(error))
    return 0


def _object(services: Services, key: str) -> bytes:
    """Nothing where it cannot be had."""
    try:
        return services.store.get(key)
    except (ObjectMissing, Corrupt):
        return b""


def _read(services: Services, row: CrawledFile) -> bytes:
    try:
        return services.store.get_range(row.key, row.offset, row.length)
    except (ObjectMissing, Corrupt):
        return b""


def remove(services: Services) -> Iterator[int]:
    """Files whose pictures nobody saw for FILIGRANE_CRAWLED_DAYS are not searched any more; the objects of those that have not been
    searched for an hour go."""
    now = services.clock.now()
    if services.settings.crawled_days:
        yield from _expire(services, now - timedelta(days=services.settings.crawled_days))
    while True:
        with services.database.read() as tx:
            keys = crawled.removable(tx, now - GRACE, _PIECE)
        if not keys:
            return
        services.store.delete(keys)
        services.database.transact(partial(crawled.forget, keys=keys))
        yield len(keys)


def _expire(services: Services, before: datetime) -> Iterator[int]:
    while True:
        with services.database.read() as tx:
            ids = crawled.expired(tx, before, _PIECE)
        if not ids:
            return
        services.database.transact(partial(crawled.retire, file_ids=ids, now=services.clock.now()))
        yield len(ids)
