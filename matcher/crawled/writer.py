"""Writes what was crawled where it can be searched, before its messages are committed: save first, acknowledge third.

A poll's pictures are one object, with a part (a row) for each session; the scheduler merges them. Written twice is found once.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from core import telemetry
from core.events import ImageFound
from core.repo import crawled
from core.repo.crawled import FileDraft
from core.services import Services
from matcher.copies.features import Fingerprint
from matcher.crawled import file, table
from matcher.crawled.table import CrawledPicture


class Found(NamedTuple):
    """A picture of a session's crawl, with its features, or as further pages of one that has them."""

    session: int
    picture: CrawledPicture
    print_: Fingerprint | None


FRESH: Final = f"{crawled.PREFIX}fresh/"
_REMEMBERED: Final = 200_000
_PICTURES: Final = telemetry.counter(
    "filigrane_matcher_crawled_pictures",
    "Crawled pictures that were written to be searched: with their features, or as further pages of one that has them.",
    ["kind"],
)


class CrawledWriter:
    """Used by one thread."""

    def __init__(self, services: Services) -> None:
        self._services = services
        days = services.settings.crawled_days
        self._lasts = timedelta(days=days) / 2 if days else None
        self._written: OrderedDict[tuple[int, str], datetime] = OrderedDict()

    def wants(self, event: ImageFound) -> bool:
        """Whether the picture's features are needed: they were not written for its session yet, as far as this process knows, or so long
        ago that they would be over before the picture is."""
        written = self._written.get((event.session, event.sha256))
        return written is None or (self._lasts is not None and self._services.clock.now() - written > self._lasts)

    def found(self, event: ImageFound, print_: Fingerprint | None) -> Found:
        """What is to be stored of it. Raises ValueError where the message's digests are none."""
        size = (print_.width, print_.height) if print_ is not None else None
        return Found(event.session, table.of_event(event, self._services.clock.now(), size), print_)

    def store(self, found: Sequence[Found]) -> None:
        """Stores and commits; what is missing of features is known already. Raises Unavailable."""
        if not found:
            return
        now = self._services.clock.now()
        key = f"{FRESH}{uuid.uuid4().hex}"
        body, drafts = _parts(key, found, now)
        self._services.store.put(key, body)
        self._services.database.transact(lambda tx: crawled.add(tx, drafts, now))
        self._remember([each for each in found if each.print_ is not None], now)
        _PICTURES.labels("pages").inc(sum(each.print_ is None for each in found))

    def _remember(self, found: Sequence[Found], now: datetime) -> None:
        for session, picture, _ in found:
            self._written[session, picture.digest] = now
            self._written.move_to_end((session, picture.digest))
        _PICTURES.labels("features").inc(len(found))
        while len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)


def _parts(key: str, found: Sequence[Found], now: datetime) -> tuple[bytes, list[FileDraft]]:
    """The object's bytes, and a draft of each session's part."""
    sessions: dict[int, list[Found]] = {}
    for each in found:
        sessions.setdefault(each.session, []).append(each)
    body, drafts = b"", []
    for session, some in sorted(sessions.items()):
        pictures, prints = _once(some)
        part = file.build(pictures, prints)
        drafts.append(file.draft(session, key, part, len(pictures), now, offset=len(body), fresh=True))
        body += part
    return body, drafts


def _once(found: Sequence[Found]) -> tuple[list[CrawledPicture], list[Fingerprint | None]]:
    """Each picture of a session once, with all pages."""
    pictures: dict[bytes, list[CrawledPicture]] = {}
    prints: dict[bytes, Fingerprint | None] = {}
    for _, picture, print_ in found:
        pictures.setdefault(picture.sha256, []).append(picture)
        prints[picture.sha256] = prints.get(picture.sha256) or print_
    return [table.joined(some) for some in pictures.values()], list(prints.values())
