"""Where a cycle stands: from the snapshot of the cycle before, the stored pieces, and what this disk still holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from core.leases import Held
from core.models import CrawlSession, Segment
from core.repo import crawls
from core.segments import tar, warc
from core.services import Services
from crawler.cycle import Progress, local_path
from crawler.frontier import Announcement, Frontier, decode_snapshot, replay
from crawler.journal import Entry, Image, Page, Piece, Pointer, Record, Skip, counted, decode_piece
from crawler.publish import Closing, LocalSegment


def recover(
    services: Services, held: Held, session: CrawlSession, left: Sequence[Entry], folder: Path
) -> tuple[Frontier, Progress, Closing | None]:
    """The frontier and progress of a running cycle, and a closing of what only this disk holds (to be journalled again and stored first)."""
    with services.database.read() as tx:
        rows = crawls.segments_of(tx, session.id, session.cycle_count)
    frontier, progress = Frontier(), Progress()
    frontier.seed(session.start_urls)
    if session.snapshot_key:
        frontier.restore(decode_snapshot(services.store.get(session.snapshot_key)))
    stored = {(row.kind, row.seq) for row in rows}
    for row in rows:
        progress.next_seq[row.kind] = max(progress.next_seq[row.kind], row.seq + 1)
        if row.kind == "tar":
            progress.tar_keys[row.seq] = row.key
    for row in journal_rows(rows):
        piece = decode_piece(services.store.get(row.key))
        progress.records = piece.first + len(piece.records)
        _pass_by(progress, piece.records)
        _learn(frontier, progress, list(counted(piece.records, stored)))
    closing = _adopt(frontier, progress, adoptable(left, held, progress.records), stored, session, folder)
    frontier.settle()
    return frontier, progress, closing


def _pass_by(progress: Progress, records: Iterable[Record]) -> None:
    """A segment that was lost before it was stored leaves records that point to its number: no other may ever get it."""
    for record in records:
        kind, pointer = _pointer(record)
        if pointer is not None:
            progress.next_seq[kind] = max(progress.next_seq[kind], pointer.seq + 1)


def journal_rows(rows: Iterable[Segment]) -> list[Segment]:
    return sorted((row for row in rows if row.kind == "journal"), key=lambda row: row.seq)


def adoptable(left: Sequence[Entry], held: Held, first: int) -> list[Record]:
    """The local records after the stored ones, unless somebody else may have crawled since: their epoch must be ours or the one before."""
    return [entry.record for entry in left if entry.number >= first and held.epoch - entry.epoch in (0, 1)]


def _learn(frontier: Frontier, progress: Progress, records: list[Record]) -> list[Announcement]:
    for record in records:
        if not isinstance(record, Skip):
            progress.elapsed = max(progress.elapsed, record.elapsed)
        if isinstance(record, Page) and not record.robots:
            progress.pages += 1
    return replay(frontier, records)


def _adopt(
    frontier: Frontier, progress: Progress, records: list[Record], stored: set[tuple[str, int]], session: CrawlSession, folder: Path
) -> Closing | None:
    ends = _ends(records, stored)
    local = {key: local_path(folder, session.id, session.cycle_count, *key) for key in ends}
    whole = {key for key, path in local.items() if (tar if key[0] == "tar" else warc).cut(path, ends[key]) >= ends[key]}
    for path in folder.glob(f"{session.id}-{session.cycle_count}-*"):
        if path not in {local[key] for key in whole}:
            path.unlink()
    kept = list(counted(records, stored | whole))
    if not kept:
        return None
    _pass_by(progress, records)
    announcements = _learn(frontier, progress, kept)
    segments = tuple(LocalSegment(kind, seq, local[kind, seq]) for kind, seq in sorted(whole))
    closing = Closing(progress.next_seq["journal"], Piece(progress.records, tuple(kept)), segments, tuple(announcements))
    progress.next_seq["journal"] += 1
    progress.records += len(kept)
    return closing


def _ends(records: Iterable[Record], stored: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """How long each local segment must be for the records that point into it."""
    ends: dict[tuple[str, int], int] = {}
    for record in records:
        kind, pointer = _pointer(record)
        if pointer is not None and (kind, pointer.seq) not in stored:
            ends[kind, pointer.seq] = max(ends.get((kind, pointer.seq), 0), pointer.offset + pointer.length)
    return ends


def _pointer(record: Record) -> tuple[str, Pointer | None]:
    if isinstance(record, Page):
        return "warc", record.warc
    if isinstance(record, Image):
        return "tar", record.tar
    return "", None

