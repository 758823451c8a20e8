"""The crawled files that an account may search, opened: fetched once, kept on the local disk within bounds, memory-mapped.

What cannot be read is counted and logged, and the others are searched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog

from core import telemetry
from core.errors import Corrupt, ObjectMissing
from core.events import ImageFound
from core.models import CrawledFile
from core.repo import crawled
from core.services import Services
from matcher.copies.features import Fingerprint
from matcher.copies.index import CANDIDATES, LEAST
from matcher.copies.look import NEAR, chance
from matcher.copies.plain import looks
from matcher.copies.segment import Query
from matcher.crawled import table
from matcher.crawled.file import PictureFile, PictureFileInvalid
from matcher.crawled.shelf import Shelf
from matcher.crawled.table import CrawledPicture

_READS: Final = 3

log = structlog.get_logger()
_UNREADABLE: Final = telemetry.counter(
    "filigrane_matcher_crawled_unreadable", "Times that a file of crawled pictures could not be searched, by reason.", ["reason"]
)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A file that may be searched, and whose it is."""

    row: CrawledFile
    account: int
    shared: bool
    pictures: PictureFile


@dataclass(frozen=True, slots=True, eq=False)
class WebCandidate:
    """A crawled picture that may be a copy of the query; `votes` as of `index.Candidate`."""

    file: Opened
    number: int
    mirrored: bool
    votes: float

    @property
    def score(self) -> float:
        """How alike: minus log10 of how many pictures would be as much so by chance. Nothing is verified."""
        return self.votes / math.log(10)

    @property
    def sha256(self) -> bytes:
        return bytes(self.file.pictures.digests[self.number])


class CrawledLibrary:
    """Thread-safe."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._shelf = Shelf(services.store, services.settings.data / "matcher" / "crawled", services.settings.crawled_cache)

    def visible(self, account: int) -> list[Opened]:
        """What the account may search now: crawls of its own and shared ones. Raises Unavailable."""
        for _ in range(_READS):
            with self._services.database.read() as tx:
                rows = crawled.visible(tx, account)
                owners = crawled.owners(tx, {row.session_id for row in rows})
            found = {row.id: self._open(row) for row in rows}
            opened = [
                Opened(row, *owners[row.session_id], pictures)
                for row in rows
                if row.session_id in owners and (pictures := found[row.id]) is not None
            ]
            if not any(self._is_gone(row) for row in rows if found[row.id] is None):
                break  # else it was merged meanwhile: its pictures are in another file
        return opened

    def candidates(self, files: Sequence[Opened], query: Fingerprint, limit: int, *, similar: bool = False) -> list[WebCandidate]:
        """The `limit` most promising pictures, the same bytes once: by their features; also those that look alike as a whole, where the
        query has too little texture for a vote, or where `similar` ones are asked for."""
        wanted, among = Query.of(query), sum(len(file.pictures) for file in files)
        found = [candidate for file in files for candidate in self._vote(file, wanted, among, limit)]
        if similar or not query.textured:
            found += _alike(files, query, among)
        best: dict[bytes, WebCandidate] = {}
        for candidate in sorted(found, key=lambda candidate: -candidate.votes):
            best.setdefault(candidate.sha256, candidate)
        return list(best.values())[:limit]

    def _vote(self, file: Opened, query: Query, among: int, limit: int) -> list[WebCandidate]:
        try:
            votes = file.pictures.segment.vote(query, among=among, least=LEAST)
        except PictureFileInvalid as error:
            self._unreadable(file.row, "damaged", error)
            return []
        order = np.argsort(-votes.votes, kind="stable")[:limit]
        return [WebCandidate(file, int(votes.pictures[at]), bool(votes.flipped[at]), float(votes.votes[at])) for at in order]

    def _open(self, row: CrawledFile) -> PictureFile | None:
        try:
            return self._shelf.get(row)
        except ObjectMissing as error:
            if not self._is_gone(row):
                self._unreadable(row, "missing", error)
        except (Corrupt, PictureFileInvalid) as error:
            self._unreadable(row, "damaged", error)
        return None

    def _is_gone(self, row: CrawledFile) -> bool:
        with self._services.database.read() as tx:
            return not crawled.is_current(tx, row.id)

    def _unreadable(self, row: CrawledFile, reason: str, error: Exception) -> None:
        _UNREADABLE.labels(reason).inc()
        log.error("crawled.file_unreadable", reason=reason, file=row.id, session=row.session_id, key=row.key, error=str(error))


def _alike(files: Sequence[Opened], query: Fingerprint, among: int) -> list[WebCandidate]:
    """By their looks, the same bytes once, the nearest first: among very many pictures their votes are all 0."""
    found = [(alike, file) for file in files for one in looks(query) for alike in file.pictures.alike(one, CANDIDATES, NEAR)]
    nearest: dict[bytes, WebCandidate] = {}
    for alike, file in sorted(found, key=lambda each: each[0].distance):
        votes = max(0.0, -math.log(max(1, among) * chance(alike.distance)))
        candidate = WebCandidate(file, alike.number, alike.mirrored, votes)
        nearest.setdefault(candidate.sha256, candidate)
    return list(nearest.values())[:CANDIDATES]


def events_of(files: Sequence[Opened], sha256: bytes, registry_version: int = 0) -> list[ImageFound]:
    """The messages that would tell of a picture now: one for each session that has it, with all its pages. Raises PictureFileInvalid."""
    sessions: dict[int, list[Opened]] = {}
    for file in files:
        sessions.setdefault(file.row.session_id, []).append(file)
    return [
        table.event_of(picture, session, some[0].account, shared=some[0].shared, registry_version=registry_version)
        for session, some in sessions.items()
        if (picture := known(some, sha256)) is not None
    ]


def known(files: Sequence[Opened], sha256: bytes) -> CrawledPicture | None:
    """What all these files know of a picture. Raises PictureFileInvalid."""
    found = [picture for file in files for picture in file.pictures.find(sha256)]
    return table.joined(found) if found else None
