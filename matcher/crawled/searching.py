"""A query among the crawled pictures: candidates by their features, each verified by its stored bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

import msgspec
import structlog

from core import telemetry
from core.errors import FiligraneError
from core.events import SearchAsked, WebHit
from core.imageinfo import image_info
from core.services import Services
from matcher.copies.features import Fingerprint
from matcher.copies.geometry import Model
from matcher.copies.verdict import Verdict, judge
from matcher.crawled.library import CrawledLibrary, Opened, WebCandidate, events_of, known
from matcher.decode import Decoders
from matcher.pipeline import model_of, stage_seconds
from matcher.reading import is_away, stored_bytes

HITS: Final = 100
"""Pictures in an answer."""
PAGES: Final = 20
"""Of each picture."""
MISSES: Final = 12
"""So many candidates in a row that are no copies, and the rest is none either."""

_BYTES: Final = 300_000
"""Of pages in an answer: a message has less than a megabyte, and 100 addresses of pictures take some of it, too."""

log = structlog.get_logger()
_CANDIDATES: Final = telemetry.counter(
    "filigrane_matcher_web_candidates", "Crawled pictures that were looked at for a search, by what they turned out to be.", ["outcome"]
)


class WebSearch:
    """Used by one thread."""

    def __init__(self, services: Services, library: CrawledLibrary, decoders: Decoders) -> None:
        self._services = services
        self._library = library
        self._decoders = decoders

    def search(self, event: SearchAsked, query: Fingerprint) -> list[WebHit]:
        """Crawled pictures that the asking account may see and that the query shows, the surest first.

        Raises:
            InvalidInput: an unknown transform.
            Unavailable: database or store are away.
        """
        model = model_of(event.transform)
        with stage_seconds.labels("web_candidates").time():
            files = self._library.visible(event.account)
            candidates = self._library.candidates(files, query, HITS, similar=event.similar)
        if event.similar:
            return _hits(files, [(candidate, None, None) for candidate in candidates])
        tests = max(1, sum(len(file.pictures) for file in files))
        found = list(self._verified(candidates, files, query, model, tests))
        found.sort(key=lambda each: -each[1].score)
        return _hits(files, found)

    def _verified(
        self, candidates: Iterable[WebCandidate], files: Sequence[Opened], query: Fingerprint, model: Model, tests: int
    ) -> Iterator[tuple[WebCandidate, Verdict, str | None]]:
        """Copies, with their credit line: until there are enough, or too many others came in a row."""
        count = misses = 0
        for candidate in candidates:
            if count == HITS or misses == MISSES:
                return
            seen = self._seen(candidate.sha256, files)
            verdict = judge(seen[0], query, model, tests) if seen is not None else None
            if seen is not None and verdict is not None and verdict.name == "copy":
                _CANDIDATES.labels("copy").inc()
                count, misses = count + 1, 0
                yield candidate, verdict, seen[1]
            else:
                _CANDIDATES.labels("other").inc()
                misses += 1

    def _seen(self, sha256: bytes, files: Sequence[Opened]) -> tuple[Fingerprint, str | None] | None:
        """The picture's fingerprint and credit line, from its stored bytes; None where these cannot be had any more."""
        try:
            data = stored_bytes(self._services, events_of(files, sha256)[0])
            return self._decoders.fingerprint(data), image_info(data).credit
        except FiligraneError as error:
            if is_away(error):
                raise
            _CANDIDATES.labels("unreadable").inc()
            log.warning("crawled.picture_unreadable", sha256=sha256.hex(), code=error.code, reason=error.details)
            return None


def _hits(files: Sequence[Opened], found: Sequence[tuple[WebCandidate, Verdict | None, str | None]]) -> list[WebHit]:
    """As many pages of each as fit into an answer, one at least."""
    hits, left = [], _BYTES
    for each in found:
        hit = _hit(files, *each)
        ends = accumulate(len(page.encode()) for page in hit.pages)
        hit = msgspec.structs.replace(
            hit, pages=tuple(page for n, (page, end) in enumerate(zip(hit.pages, ends, strict=True)) if not n or end <= left)
        )
        left -= sum(len(page.encode()) for page in hit.pages)
        hits.append(hit)
    return hits


def _hit(files: Sequence[Opened], candidate: WebCandidate, verdict: Verdict | None, credit: str | None) -> WebHit:
    picture = known(files, candidate.sha256)
    assert picture is not None, "a candidate is in one of the files"
    width, height = picture.size or (0, 0)
    return WebHit(
        sha256=picture.digest,
        md5=picture.md5.hex(),
        url=picture.url,
        pages=tuple(page_url for page_url, _ in picture.pages[:PAGES]),
        page_count=len(picture.pages),
        first_seen=picture.first_seen,
        width=width,
        height=height,
        credit=credit,
        last_modified=picture.last_modified,
        verdict=verdict.name if verdict else None,
        score=verdict.score if verdict else candidate.score,
        mirrored=verdict.mirrored if verdict else candidate.mirrored,
        overlap=verdict.overlap if verdict else None,
        transform=tuple(float(value) for value in verdict.transform.ravel()) if verdict else None,
    )
