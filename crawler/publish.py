"""Save first, publish second: from a closing to objects, rows and messages.

The messages of a piece follow from the pieces up to it alone: `messages_of_piece` builds for `heal` what the worker did not live to send.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from core.bus import Outgoing
from core.events import IMAGES, SIGHTINGS_PER_MESSAGE, ImageFound, Sighting, StoredAt, encode
from core.leases import Held
from core.models import CrawlSession, Segment
from core.repo import accounts, crawls
from core.services import Services
from crawler.frontier import Announcement, Frontier, replay
from crawler.journal import Image, Piece, Record, decode_piece, encode_piece

SUFFIX: Final = {"tar": "tar", "warc": "warc.gz", "journal": "journal"}


@dataclass(frozen=True, slots=True)
class LocalSegment:
    """A closed segment file that waits to be stored."""

    kind: str
    seq: int
    path: Path


@dataclass(frozen=True, slots=True)
class Closing:
    """What is stored together: a piece, the segments that closed with it, and what they tell of pictures."""

    seq: int
    piece: Piece
    segments: tuple[LocalSegment, ...]
    announcements: tuple[Announcement, ...]


def segment_key(session: int, cycle: int, epoch: int, kind: str, seq: int) -> str:
    return f"crawl/{session}/{cycle}/{epoch}/{seq:06d}.{SUFFIX[kind]}"


def store(services: Services, held: Held, session: CrawlSession, closing: Closing) -> list[Segment]:
    """Puts the closing's objects, then commits their rows. Returns the rows; from then on the closing is *stored*.

    Raises:
        StaleLease: the domain has another holder; nothing of the closing counts.
        Unavailable: store or database are away or full; call again.
    """
    now = services.clock.now()
    data = encode_piece(closing.piece)
    rows = [_put_file(services, held, session, segment, now) for segment in closing.segments]
    key = segment_key(session.id, session.cycle_count, held.epoch, "journal", closing.seq)
    services.store.put(key, data)
    rows.append(_row(held, session, "journal", closing.seq, key, len(data), hashlib.sha256(data).hexdigest(), now))
    with services.database.write() as tx:
        crawls.store_segments(tx, held, rows)
    return rows


def _put_file(services: Services, held: Held, session: CrawlSession, segment: LocalSegment, now: datetime) -> Segment:
    key = segment_key(session.id, session.cycle_count, held.epoch, segment.kind, segment.seq)
    with segment.path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    info = services.store.put(key, segment.path)
    return _row(held, session, segment.kind, segment.seq, key, info.length, digest, now)


def _row(held: Held, session: CrawlSession, kind: str, seq: int, key: str, length: int, sha256: str, now: datetime) -> Segment:
    return Segment(
        session_id=session.id,
        cycle=session.cycle_count,
        kind=kind,
        seq=seq,
        epoch=held.epoch,
        key=key,
        length=length,
        sha256=sha256,
        stored=now,
    )


def send(services: Services, session: CrawlSession, closing: Closing, tar_keys: Mapping[int, str]) -> None:
    """Publishes the messages of a stored closing and marks it sent. `tar_keys`: seq -> object key, of the whole cycle."""
    if session.search:
        with services.database.read() as tx:
            version = accounts.by_id(tx, session.account_id).registry_version
        services.bus.publish(messages(session, session.cycle_count, version, closing.announcements, tar_keys))
    with services.database.write() as tx:
        crawls.mark_sent(tx, session.id, session.cycle_count, closing.seq, services.clock.now())


def messages(
    session: CrawlSession, cycle: int, registry_version: int, announcements: Iterable[Announcement], tar_keys: Mapping[int, str]
) -> list[Outgoing]:
    """The `images` messages of the announcements: one per picture and 500 sightings."""
    merged: dict[str, tuple[Announcement, list[tuple[str, str]]]] = {}
    for announcement in announcements:
        merged.setdefault(announcement.url, (announcement, []))[1].extend(announcement.sightings)
    return [
        _message(session, cycle, registry_version, announcement, sightings[start : start + SIGHTINGS_PER_MESSAGE], tar_keys)
        for announcement, sightings in merged.values()
        for start in range(0, len(sightings), SIGHTINGS_PER_MESSAGE)
    ]


def _message(
    session: CrawlSession,
    cycle: int,
    registry_version: int,
    announcement: Announcement,
    sightings: Sequence[tuple[str, str]],
    tar_keys: Mapping[int, str],
) -> Outgoing:
    stored = announcement.stored
    key = tar_keys[stored.tar.seq]
    event = ImageFound(
        account=session.account_id,
        registry_version=registry_version,
        session=session.id,
        cycle=cycle,
        epoch=int(key.split("/")[3]),
        shared=session.shared,
        url=announcement.url,
        sha256=stored.sha256,
        md5=stored.md5,
        content_type=stored.content_type,
        bytes=StoredAt(stored.tar.seq, key, stored.tar.offset, stored.tar.length),
        first_seen=datetime.fromtimestamp(stored.at, UTC),
        request_id=uuid.uuid5(uuid.NAMESPACE_URL, f"{key}#{stored.tar.offset} {announcement.url} {sightings[0][0]}").hex,
        sightings=tuple(Sighting(page_url, alt) for page_url, alt in sightings),
        width=stored.width,
        height=stored.height,
        last_modified=http_date(stored.last_modified),
    )
    return Outgoing(IMAGES, stored.sha256, encode(event), {"request_id": event.request_id})


def http_date(value: str) -> datetime | None:
    """The moment that a Last-Modified header names; None when it names none."""
    try:
        return parsedate_to_datetime(value).astimezone(UTC) if value else None
    except (ValueError, OverflowError):
        return None


def messages_of_piece(services: Services, row: Segment) -> list[Outgoing]:
    """The messages of a stored journal piece, built from the cycle's pieces up to it.

    Page records count here even when their WARC segment was never stored: the page was seen, and effects are idempotent. Image records
    whose TAR segment was lost have nothing to show.
    """
    with services.database.read() as tx:
        session = crawls.get_session(tx, None, row.session_id)
        rows = crawls.segments_of(tx, row.session_id, row.cycle)
        version = accounts.by_id(tx, session.account_id).registry_version
    if not session.search:
        return []
    tar_keys = {each.seq: each.key for each in rows if each.kind == "tar"}
    frontier = Frontier()
    announcements: list[Announcement] = []
    for journal in (each for each in rows if each.kind == "journal" and each.seq <= row.seq):
        records = decode_piece(services.store.get(journal.key)).records
        announcements = replay(frontier, (record for record in records if not _is_lost(record, tar_keys)))
    return messages(session, row.cycle, version, announcements, tar_keys)


def _is_lost(record: Record, tar_keys: Mapping[int, str]) -> bool:
    return isinstance(record, Image) and record.tar is not None and record.tar.seq not in tar_keys
