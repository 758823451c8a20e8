"""Writes what was crawled where it can be searched, before its messages are committed: save first, acknowledge third.

A poll's pictures are one object, with a part (a row) for each session; the scheduler merges them. Written twice is found once.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from core import telemetry
from core.events import ImageFound
from core.repo import crawled
from core.repo.crawled import FileDraft
from core.services import Services
from matcher.copies.features import Fingerprint
from matcher.crawled import file, table
from matcher.crawled.table import CrawledPicture

Found = tuple[ImageFound, Fingerprint | None]

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
        self._written: OrderedDict[tuple[int, bytes], datetime] = OrderedDict()

    def wants(self, event: ImageFound) -> bool:
        """Whether the picture's features are needed: they were not written for its session yet, as far as this process knows, or so long
        ago that they would be over before the picture is."""
        written = self._written.get(_identity(event))
        return written is None or (self._lasts is not None and self._services.clock.now() - written > self._lasts)

    def store(self, found: Sequence[Found]) -> None:
        """Stores and commits; what is missing of features is known already. Raises Unavailable."""
        if not found:
            return
        now = self._services.clock.now()
        key = f"{FRESH}{uuid.uuid4().hex}"
        body, drafts = _parts(key, found, now)
        self._services.store.put(key, body)
        self._services.database.transact(lambda tx: crawled.add(tx, drafts, now))
        self._remember([event for event, print_ in found if print_ is not None], now)
        _PICTURES.labels("pages").inc(sum(print_ is None for _, print_ in found))

    def _remember(self, events: Sequence[ImageFound], now: datetime) -> None:
        for event in events:
            self._written[_identity(event)] = now
            self._written.move_to_end(_identity(event))
        _PICTURES.labels("features").inc(len(events))
        while len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)


def _identity(event: ImageFound) -> tuple[int, bytes]:
    return event.session, bytes.fromhex(event.sha256)


def _parts(key: str, found: Sequence[Found], now: datetime) -> tuple[bytes, list[FileDraft]]:
    """The object's bytes, and a draft of each session's part."""
    sessions: dict[int, list[Found]] = {}
    for event, print_ in found:
        sessions.setdefault(event.session, []).append((event, print_))
    body, drafts = b"", []
    for session, some in sorted(sessions.items()):
        pictures, prints = _once(some, now)
        part = file.build(pictures, prints)
        drafts.append(file.draft(session, key, part, len(pictures), now, offset=len(body), fresh=True))
        body += part
    return body, drafts


def _once(found: Sequence[Found], now: datetime) -> tuple[list[CrawledPicture], list[Fingerprint | None]]:
    """Each picture of a session once, with all pages."""
    pictures: dict[str, list[CrawledPicture]] = {}
    prints: dict[str, Fingerprint | None] = {}
    for event, print_ in found:
        size = (print_.width, print_.height) if print_ is not None else None
        pictures.setdefault(event.sha256, []).append(table.of_event(event, now, size))
        prints[event.sha256] = prints.get(event.sha256) or print_
    return [table.joined(some) for some in pictures.values()], list(prints.values())
