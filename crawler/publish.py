"""Save first, publish second: from a closing to objects, rows and messages.

The messages of a piece follow from the pieces up to it alone: `messages_of_pieces` builds for `heal` what the worker did not live to send.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import structlog

from core.bus import Outgoing
from core.errors import Corrupt, FiligraneError, Unavailable
from core.events import IMAGES, SIGHTINGS_PER_MESSAGE, ImageFound, Sighting, StoredAt, encode
from core.leases import Held
from core.models import CrawlSession, Segment
from core.repo import accounts, crawls
from core.services import Services
from crawler.frontier import Announcement, Frontier, replay
from crawler.journal import Image, Piece, Record, decode_piece, encode_piece

_SIGHTINGS_BYTES: Final = 500_000
_SIGHTING_FRAME: Final = 24
log = structlog.get_logger()

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
        announce(
            services, session.id, session.cycle_count, messages(session, session.cycle_count, version, closing.announcements, tar_keys)
        )
    with services.database.write() as tx:
        crawls.mark_sent(tx, session.id, session.cycle_count, closing.seq, services.clock.now())


def announce(services: Services, session_id: int, cycle: int, outgoing: Sequence[Outgoing]) -> None:
    """Publishes them, and logs each under its request id: with it one picture can be followed through all logs. Raises Unavailable."""
    services.bus.publish(outgoing)
    for message in outgoing:
        log.info("crawler.picture_published", request_id=message.headers["request_id"], sha256=message.key, session=session_id, cycle=cycle)


def messages(
    session: CrawlSession, cycle: int, registry_version: int, announcements: Iterable[Announcement], tar_keys: Mapping[int, str]
) -> list[Outgoing]:
    """The `images` messages of the announcements: one per picture and 500 sightings (fewer where these are long)."""
    merged: dict[str, tuple[Announcement, list[tuple[str, str]]]] = {}
    for announcement in announcements:
        merged.setdefault(announcement.url, (announcement, []))[1].extend(announcement.sightings)
    return [
        _message(session, cycle, registry_version, announcement, some, tar_keys)
        for announcement, sightings in merged.values()
        for some in _split(sightings)
    ]


def _split(sightings: Sequence[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Pieces of at most 500 sightings that leave room in a message for the rest of it, however long URLs and texts are."""
    some: list[tuple[str, str]] = []
    size = 0
    for sighting in sightings:
        length = _SIGHTING_FRAME + sum(_json_length(text) for text in sighting)
        if some and (len(some) == SIGHTINGS_PER_MESSAGE or size + length > _SIGHTINGS_BYTES):
            yield some
            some, size = [], 0
        some.append(sighting)
        size += length
    yield some


def _json_length(text: str) -> int:
    """Bytes of the text in a message, at most: a control character takes six."""
    return len(text.encode()) if text.isprintable() else 6 * len(text)


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


class PieceUnreadable(FiligraneError):
    """A journal piece cannot be read; the messages of the pieces after it depend on it too."""

    default_code = "piece_unreadable"

    def __init__(self, row: Segment, error: Exception) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.row = row


def messages_of_pieces(services: Services, session_id: int, cycle: int, seqs: Collection[int]) -> Iterator[tuple[Segment, list[Outgoing]]]:
    """Each of these stored journal pieces with its messages, in order, built in one pass over the cycle's pieces.

    Page records count here even when their WARC segment was never stored: the page was seen, and effects are idempotent. Image records
    whose TAR segment was lost have nothing to show; nor has what is in pieces that were given up.

    Raises:
        PieceUnreadable: damaged, or its object is gone.
        NotFound: the session is deleted.
        Unavailable: database or store are away.
    """
    with services.database.read() as tx:
        session = crawls.get_session(tx, None, session_id)
        rows = crawls.segments_of(tx, session_id, cycle)
        version = accounts.by_id(tx, session.account_id).registry_version
    tar_keys = {each.seq: each.key for each in rows if each.kind == "tar"}
    frontier = Frontier()
    for row in (each for each in rows if each.kind == "journal" and each.seq <= max(seqs)):
        announcements = _replayed(services, frontier, row, tar_keys) if session.search and row.given_up is None else []
        if row.seq in seqs:
            yield row, messages(session, cycle, version, announcements, tar_keys)


def _replayed(services: Services, frontier: Frontier, row: Segment, tar_keys: Mapping[int, str]) -> list[Announcement]:
    """What the piece announces after those before it. Raises PieceUnreadable, Unavailable."""
    try:
        records = decode_piece(services.store.get(row.key)).records
        return replay(frontier, (record for record in records if not _is_lost(record, tar_keys)))
    except Exception as error:
        if isinstance(error, Unavailable) and not isinstance(error, Corrupt):
            raise
        raise PieceUnreadable(row, error) from error


def _is_lost(record: Record, tar_keys: Mapping[int, str]) -> bool:
    return isinstance(record, Image) and record.tar is not None and record.tar.seq not in tar_keys
