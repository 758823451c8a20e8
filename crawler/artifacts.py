"""The end of a cycle: from segments and journal pieces to a batch with its artifacts."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from core.errors import Corrupt
from core.leases import Held
from core.models import CrawlSession, Segment
from core.objectstore import ObjectStore
from core.repo import crawls
from core.repo.crawls import ArtifactDraft
from core.segments import csvlog, tar
from core.segments.csvlog import CsvLog
from core.services import Services
from crawler.frontier import Frontier, encode_snapshot
from crawler.journal import Image, Page, Record, Skip, counted, decode_piece
from crawler.publish import http_date
from crawler.recover import journal_rows
from crawler.robots import UNREACHABLE

GZIP: Final = "application/gzip"


def finish(services: Services, held: Held, session: CrawlSession, frontier: Frontier, folder: Path) -> str:
    """Joins the segments, writes the logs, stores the snapshot, then commits the batch. Repeatable until it has succeeded once.

    Returns:
        The session's state: done, or failed when nothing of the site could be read.

    Raises:
        StaleLease, Unavailable.
    """
    with services.database.read() as tx:
        rows = crawls.segments_of(tx, session.id, session.cycle_count)
    prefix = f"batches/{session.id}/{session.cycle_count}/{held.epoch}"
    drafts = []
    offsets: dict[tuple[str, int], int] = {}
    for name, kind, tail in (("images.tar", "tar", tar.TRAILER), ("pages.warc", "warc", b"")):
        segments = [row for row in rows if row.kind == kind]
        starts = _starts(segments)
        offsets |= {(kind, seq): start for seq, start in starts.items()}
        if segments:
            key = f"{prefix}/{name}" + (".gz" if kind == "warc" else "")
            info = services.store.join([row.key for row in segments], key, tail=tail)
            count = _members(services, rows, kind)
            drafts.append(
                ArtifactDraft(
                    name, count, key, info.length, proven_digest(services.store, key, segments), _TYPES[name], _filename(session, key)
                )
            )
    tars = {seq: start for (kind, seq), start in offsets.items() if kind == "tar"}
    drafts += [_log(services, session, prefix, folder, name, write) for name, write in _logs(services, rows, frontier, tars).items()]
    snapshot_key = f"frontiers/{session.id}/{session.cycle_count}-{held.epoch}"
    services.store.put(snapshot_key, encode_snapshot(frontier.snapshot()))
    state, reason = judge(session.start_urls, _records(services, rows))
    with services.database.write() as tx:
        crawls.finish_cycle(
            tx,
            held,
            session.id,
            artifacts=drafts,
            offsets=offsets,
            snapshot_key=snapshot_key,
            state=state,
            reason=reason,
            now=services.clock.now(),
        )
    return state


_TYPES: Final = {"images.tar": "application/x-tar", "pages.warc": "application/warc"}


def _filename(session: CrawlSession, key: str) -> str:
    return f"session-{session.id}-cycle-{session.cycle_count}-{key.rsplit('/', 1)[1]}"


def _starts(segments: Sequence[Segment]) -> dict[int, int]:
    """seq -> where the segment begins in the joined artifact."""
    starts, position = {}, 0
    for row in segments:
        starts[row.seq] = position
        position += row.length
    return starts


def proven_digest(store: ObjectStore, key: str, segments: Sequence[Segment]) -> str:
    """SHA-256 of a joined artifact. Neither joining nor this reading changed a byte: each segment in it has its row's digest.

    Raises:
        Corrupt: one does not; join again.
        ObjectMissing, Unavailable.
    """
    whole, part, left = hashlib.sha256(), hashlib.sha256(), deque(segments)
    missing = left[0].length
    for piece in store.stream(key):
        whole.update(piece)
        while left and len(piece) >= missing:
            part.update(piece[:missing])
            if part.hexdigest() != left.popleft().sha256:
                raise Corrupt(f"{key}: a segment is not in it as it was stored")
            piece, part, missing = piece[missing:], hashlib.sha256(), left[0].length if left else 0
        part.update(piece)
        missing -= len(piece)
    if left:
        raise Corrupt(f"{key}: it ends before its last segment")
    return whole.hexdigest()


def _records(services: Services, rows: Sequence[Segment]) -> Iterator[Record]:
    """The records of the cycle that count, in order."""
    stored = {(row.kind, row.seq) for row in rows}
    for row in journal_rows(rows):
        yield from counted(decode_piece(services.store.get(row.key)).records, stored)


def _members(services: Services, rows: Sequence[Segment], kind: str) -> int:
    """Different pictures of the TAR; requests (with their answers) of the WARC."""
    records = _records(services, rows)
    if kind == "tar":
        return len({record.sha256 for record in records if isinstance(record, Image) and record.tar})
    return sum(1 for record in records if isinstance(record, Page) and record.warc)


Write = Callable[[Path], int]


def _logs(services: Services, rows: Sequence[Segment], frontier: Frontier, tars: dict[int, int]) -> dict[str, Write]:
    """Artifact name -> what writes it to a file and returns its rows."""

    def rows_of(columns: Sequence[str], make: Callable[[], Iterable[dict[str, csvlog.Value]]]) -> Write:
        def write(path: Path) -> int:
            with CsvLog(path, columns) as log:
                for row in make():
                    log.write(row)
                return log.count

        return write

    def records() -> Iterator[Record]:
        return _records(services, rows)

    return {
        "images.log": rows_of(csvlog.IMAGES, lambda: image_rows(frontier, tars)),
        "pages.log": rows_of(csvlog.PAGES, lambda: page_rows(records())),
        "videos.log": rows_of(csvlog.VIDEOS, lambda: other_rows(records(), "videos")),
        "documents.log": rows_of(csvlog.DOCUMENTS, lambda: other_rows(records(), "documents")),
        "skipped.log": rows_of(csvlog.SKIPPED, lambda: skipped_rows(records())),
    }


def _log(services: Services, session: CrawlSession, prefix: str, folder: Path, name: str, write: Write) -> ArtifactDraft:
    path = folder / f"{session.id}-{session.cycle_count}-{name}"
    count = write(path)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    key = f"{prefix}/{name}.csv.gz"
    info = services.store.put(key, path)
    path.unlink()
    return ArtifactDraft(name, count, key, info.length, digest, GZIP, _filename(session, key))


def image_rows(frontier: Frontier, tars: dict[int, int]) -> Iterator[dict[str, csvlog.Value]]:
    """One row per (image URL, page URL). `offset` is where the picture's bytes begin in images.tar."""
    for image, sightings in frontier.images():
        row: dict[str, csvlog.Value] = {
            "url": image.url,
            "status": image.status,
            "content_type": image.content_type,
            "width": image.width,
            "height": image.height,
            "bytes": image.bytes,
            "md5": image.md5,
            "sha256": image.sha256,
            "last_modified": http_date(image.last_modified),
            "credit": image.credit,
            "offset": tars[image.tar.seq] + image.tar.offset if image.tar else None,
            "crawled_at": _moment(image.at),
            "outcome": image.outcome,
            "reason": image.reason,
        }
        for page_url, alt in sightings.items():
            yield {**row, "page_url": page_url, "alt": alt}


def page_rows(records: Iterable[Record]) -> Iterator[dict[str, csvlog.Value]]:
    """One row per request for a page."""
    for page in records:
        if isinstance(page, Page):
            yield {
                "url": page.url,
                "referrer": page.referrer,
                "depth": page.depth,
                "status": page.status,
                "content_type": page.content_type,
                "bytes": page.bytes,
                "sha256": page.sha256,
                "etag": page.etag,
                "last_modified": http_date(page.last_modified),
                "fetched_at": _moment(page.at),
                "outcome": page.outcome,
                "reason": page.reason,
            }


def other_rows(records: Iterable[Record], what: str) -> Iterator[dict[str, csvlog.Value]]:
    """Videos or documents seen on pages, one row per (URL, page URL); they are not fetched."""
    seen = set()
    for page in records:
        if isinstance(page, Page):
            for url in getattr(page, what):
                if (url, page.url) not in seen:
                    seen.add((url, page.url))
                    yield {"url": url, "page_url": page.url, "crawled_at": _moment(page.at)}


def skipped_rows(records: Iterable[Record]) -> Iterator[dict[str, csvlog.Value]]:
    """URLs that were found and not requested: one row per (URL, reason) with how often it was found."""
    first_page: dict[tuple[str, str], str] = {}
    count: Counter[tuple[str, str]] = Counter()
    for record in records:
        found = [(record.url, record.reason, record.page_url)] if isinstance(record, Skip) else []
        if isinstance(record, Page):
            found = [(url, reason, record.url) for url, reason in record.skipped]
        for url, reason, page_url in found:
            first_page.setdefault((url, reason), page_url)
            count[url, reason] += 1
    for (url, reason), page_url in first_page.items():
        yield {"url": url, "page_url": page_url, "reason": reason, "count": count[url, reason]}


def judge(start_urls: Sequence[str], records: Iterable[Record]) -> tuple[str, str | None]:
    """(state, reason) of the cycle: failed when no page of the site could be read, with what the start URL said."""
    said: dict[str, str] = {}
    robots = ""
    for record in records:
        if isinstance(record, Page) and not record.robots:
            if record.outcome in ("fetched", "truncated") and (record.status or 999) < 300:
                return "done", None
            said[record.url] = _said(record)
        elif isinstance(record, Page):
            robots = _said(record)
        elif isinstance(record, Skip) and not record.image:
            said.setdefault(record.url, f"not requested: {record.reason}" + (f", {robots}" if record.reason == UNREACHABLE else ""))
    return "failed", "; ".join(f"{url}: {said.get(url, 'not reached')}" for url in start_urls)


def _said(page: Page) -> str:
    if page.status is None:
        return f"no answer ({page.reason})"
    if page.outcome == "refused":
        return f"not a page ({page.content_type or page.reason})"
    return f"answered {page.status}"


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
