"""Where a cycle stands: from the snapshot of the cycle before, the stored pieces, and what this disk still holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from core.leases import Held
from core.models import CrawlSession, Segment
from core.repo import crawls
from core.segments import tar, warc
from core.services import Services
from crawler.cycle import Progress, local_path
from crawler.frontier import Announcement, Frontier, decode_snapshot
from crawler.journal import Entry, Image, Page, Piece, Pointer, Record, Skip, counted, decode_piece
from crawler.publish import Closing, LocalSegment


def recover(
    services: Services, held: Held, session: CrawlSession, left: Sequence[Entry], folder: Path
) -> tuple[Frontier, Progress, Closing | None]:
    """The frontier and progress of a running cycle, and a closing of what only this disk holds (to be stored first).

    The closing holds the local records under the numbers that they have, also those that do not count: until it is stored the local journal
    stays as it is, and whoever is killed before finds the same again.
    """
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
    pieces = [(row.epoch, decode_piece(services.store.get(row.key))) for row in journal_rows(rows)]
    for _, piece in pieces:
        progress.records = piece.first + len(piece.records)
    ours = _ours(rows, left, held)
    tail = _following((entry for entry in left if ours(entry.epoch)), progress.records)
    mine = [record for epoch, piece in pieces if ours(epoch) for record in piece.records] + tail
    local = _adopt(_ends(mine, stored), session, folder)
    for epoch, piece in pieces:
        _pass_by(progress, piece.records)
        _learn(frontier, progress, counted(piece.records, stored | local.keys() if ours(epoch) else stored))
    _pass_by(progress, tail)
    announcements = _learn(frontier, progress, counted(tail, stored | local.keys()))
    frontier.settle()
    if not tail and not local:
        return frontier, progress, None
    segments = tuple(LocalSegment(kind, seq, path) for (kind, seq), path in sorted(local.items()))
    closing = Closing(progress.next_seq["journal"], Piece(progress.records, tuple(tail)), segments, tuple(announcements))
    progress.next_seq["journal"] += 1
    progress.records += len(tail)
    return frontier, progress, closing


def _following(left: Iterable[Entry], first: int) -> list[Record]:
    """The local records behind the stored ones, up to the first gap."""
    found: list[Record] = []
    for entry in left:
        if entry.number == first + len(found):
            found.append(entry.record)
    return found


def over(services: Services, folder: Path, left: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The (session, cycle) of local records and files with which nobody will go on."""
    files = (path.name.split("-", 2) for path in folder.glob("*-*-*"))
    keys = {*left, *((int(session), int(cycle)) for session, cycle, _ in files)}
    with services.database.read() as tx:
        return [key for key in sorted(keys) if crawls.is_over(tx, *key)]


def journal_rows(rows: Iterable[Segment]) -> list[Segment]:
    return sorted((row for row in rows if row.kind == "journal"), key=lambda row: row.seq)


def _ours(rows: Sequence[Segment], left: Sequence[Entry], held: Held) -> Callable[[int], bool]:
    """Whether what this disk holds of an epoch still stands: nobody else has stored anything of the cycle since.

    Somebody who crawled in between and stored it has fetched the same pages again: then their records count, not ours.
    """
    own = {entry.epoch for entry in left} | {held.epoch}
    others = max((row.epoch for row in rows if row.epoch not in own), default=0)
    return lambda epoch: epoch >= others


def _pass_by(progress: Progress, records: Iterable[Record]) -> None:
    """A segment that was lost before it was stored leaves records that point to its number: no other may ever get it."""
    for record in records:
        kind, pointer = _pointer(record)
        if pointer is not None:
            progress.next_seq[kind] = max(progress.next_seq[kind], pointer.seq + 1)


def _learn(frontier: Frontier, progress: Progress, records: Iterable[Record]) -> list[Announcement]:
    announcements = []
    for record in records:
        if not isinstance(record, Skip):
            progress.elapsed = max(progress.elapsed, record.elapsed)
        if isinstance(record, Page) and not record.robots:
            progress.pages += 1
        announcements += frontier.apply(record)
    return announcements


def _adopt(ends: dict[tuple[str, int], int], session: CrawlSession, folder: Path) -> dict[tuple[str, int], Path]:
    """The segments of this disk that hold all that is said of them, cut behind it; others of the cycle are deleted."""
    local = {key: local_path(folder, session.id, session.cycle_count, *key) for key in ends}
    whole = {key: path for key, path in local.items() if (tar if key[0] == "tar" else warc).cut(path, ends[key]) >= ends[key]}
    for path in folder.glob(f"{session.id}-{session.cycle_count}-*"):
        if path not in whole.values():
            path.unlink()
    return whole


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
