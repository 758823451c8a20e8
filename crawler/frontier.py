"""What a session knows of its site: which URLs are to be fetched, which were, and which page shows which image.

The frontier is a fold over records: `apply` is the only way in which it learns, so replaying a journal gives the same frontier. What is
being fetched right now waits nowhere and has no record yet; after a crash that is fetched again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import msgspec
import zstandard

from core.errors import Corrupt
from core.urls import registrable_domain
from crawler.journal import Image, Page, Pointer, Record

HOST_BUSY: Final = "host_busy"
"""Another worker had the host for as long as the cycle ran."""
LATER: Final = frozenset({"time", "paused", HOST_BUSY})
"""Why an image was skipped that comes first in the next cycle."""


@dataclass(slots=True)
class Task:
    """One thing to fetch. `target` differs from `url` behind an image's redirects."""

    kind: Literal["page", "image", "robots"]
    url: str
    referrer: str
    depth: int = 0
    alt: str = ""
    target: str = ""
    hops: int = 0
    failures: int = 0
    also: tuple[tuple[str, str], ...] = ()
    """An image of the cycle before: (page URL, alt) of its further sightings."""

    @property
    def address(self) -> str:
        return self.target or self.url


@dataclass(frozen=True, slots=True)
class Stored:
    """A fetched picture whose bytes are in a segment."""

    sha256: str
    md5: str
    content_type: str
    width: int | None
    height: int | None
    last_modified: str
    at: float
    tar: Pointer


@dataclass(frozen=True, slots=True)
class Announcement:
    """A stored picture and the pages on which it was newly seen: (page URL, alt)."""

    url: str
    stored: Stored
    sightings: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Image:
    sightings: dict[str, str] = field(default_factory=dict)
    record: Image | None = None
    stored: Stored | None = None
    skipped: bool = False
    left: bool = False
    """For the next cycle."""


@dataclass(slots=True)
class _Page:
    depth: int
    referrer: str
    hops: int = 0
    done: bool = False
    skipped: bool = False
    failures: int = 0


class Known(msgspec.Struct, frozen=True, array_like=True):
    """A page as the snapshot keeps it."""

    url: str
    referrer: str
    depth: int
    fetched: bool


class Left(msgspec.Struct, frozen=True, array_like=True):
    """An image that the cycle did not come to ask for: its URL and sightings (page URL, alt)."""

    url: str
    sightings: tuple[tuple[str, str], ...]


class Snapshot(msgspec.Struct, frozen=True):
    """The frontier at the end of a cycle."""

    pages: tuple[Known, ...]
    v: int = 1
    images: tuple[Left, ...] = ()


class Frontier:
    """One cycle of one session. URLs wait in a queue per registrable domain, images before pages, in the order of discovery."""

    def __init__(self) -> None:
        self._pages: dict[str, _Page] = {}
        self._images: dict[str, _Image] = {}
        self._by_digest: dict[str, Pointer] = {}
        self._waiting: dict[str, tuple[deque[Task], deque[Task]]] = {}
        self._fresh: set[str] = set()

    # --- learning

    def seed(self, urls: Iterable[str]) -> None:
        """Start URLs: depth 0, in this order."""
        for url in urls:
            self._add_page(url, "", 0)

    def restore(self, snapshot: Snapshot) -> None:
        """What earlier cycles left: images that they did not ask for, and behind the start URLs their pages, never fetched ones first."""
        for left in snapshot.images:
            self._images[left.url] = _Image(dict(left.sightings))
            (page_url, alt), *also = left.sightings
            self._wait(Task("image", left.url, page_url, alt=alt, also=tuple(also)))
        for fetched in (False, True):
            for known in snapshot.pages:
                if known.fetched is fetched:
                    self._add_page(known.url, known.referrer, known.depth)

    def apply(self, record: Record) -> list[Announcement]:
        """Learns from a record; returns what it newly tells of stored pictures."""
        if isinstance(record, Page):
            return self._apply_page(record)
        if isinstance(record, Image):
            return self._apply_image(record)
        if record.image:
            image = self._images.setdefault(record.url, _Image())
            image.sightings.setdefault(record.page_url, "")
            image.skipped, image.left = True, record.reason in LATER
        else:
            self._pages.setdefault(record.url, _Page(0, record.page_url)).skipped = True
        return []

    def _apply_page(self, record: Page) -> list[Announcement]:
        if record.robots:
            return []
        page = self._pages.setdefault(record.url, _Page(record.depth, record.referrer, record.hops))
        if record.retry:
            page.failures += 1
            self._wait(Task("page", record.url, page.referrer, page.depth, hops=page.hops, failures=page.failures))
        else:
            page.done = True
        if record.redirect:
            self._add_page(record.redirect, record.url, record.depth, record.hops + 1)
        for url in record.links:
            self._add_page(url, record.url, record.depth + 1)
        return [found for url, alt in record.images if (found := self._sight(url, record.url, alt))]

    def _apply_image(self, record: Image) -> list[Announcement]:
        image = self._images.setdefault(record.url, _Image())
        for page_url, alt in ((record.page_url, record.alt), *record.also):
            image.sightings.setdefault(page_url, alt)
        image.record = record
        if record.tar is None:
            return []
        self._by_digest.setdefault(record.sha256, record.tar)
        image.stored = Stored(
            record.sha256, record.md5, record.content_type, record.width, record.height, record.last_modified, record.at, record.tar
        )
        return [Announcement(record.url, image.stored, tuple(image.sightings.items()))]

    def _sight(self, url: str, page_url: str, alt: str) -> Announcement | None:
        image = self._images.get(url)
        if image is None:
            image = self._images[url] = _Image()
            self._wait(Task("image", url, page_url, alt=alt))
        if page_url in image.sightings:
            return None
        image.sightings[page_url] = alt
        return Announcement(url, image.stored, ((page_url, alt),)) if image.stored else None

    def _add_page(self, url: str, referrer: str, depth: int, hops: int = 0) -> None:
        if url not in self._pages:
            self._pages[url] = _Page(depth, referrer, hops)
            self._wait(Task("page", url, referrer, depth, hops=hops))

    # --- fetching

    def _wait(self, task: Task) -> None:
        domain = registrable_domain(task.address)
        images, pages = self._waiting.setdefault(domain, (deque(), deque()))
        (images if task.kind == "image" else pages).append(task)
        self._fresh.add(domain)

    def settle(self) -> None:
        """After a replay: drops what waits no longer from the queues. Fetching never leaves such entries behind."""
        for domain, queues in list(self._waiting.items()):
            images, pages = (deque(task for task in queue if self._is_due(task)) for queue in queues)
            self._waiting[domain] = (images, pages)

    def _is_due(self, task: Task) -> bool:
        if task.kind == "image":
            image = self._images[task.url]
            return image.record is None and not image.skipped
        page = self._pages[task.url]
        return not page.done and not page.skipped and page.failures == task.failures

    def domains(self) -> Iterator[str]:
        """Where something waits."""
        return (domain for domain, (images, pages) in self._waiting.items() if images or pages)

    def waits(self, *, pages: bool) -> bool:
        """Whether anything waits; `pages`: pages count too."""
        return any(images or (pages and waiting_pages) for images, waiting_pages in self._waiting.values())

    def waits_for(self, domain: str) -> bool:
        images, pages = self._waiting.get(domain, ((), ()))
        return bool(images or pages)

    def fresh_domains(self) -> set[str]:
        """Where something began to wait since the last call."""
        fresh, self._fresh = self._fresh, set()
        return fresh

    def take(self, domain: str, *, pages: bool = True) -> Task | None:
        """The next task on the domain; it waits no longer, unless it is given back."""
        images, waiting_pages = self._waiting.get(domain, (deque(), deque()))
        queue = images or (waiting_pages if pages else None)
        if not queue:
            return None
        return queue.popleft()

    def give_back(self, task: Task) -> None:
        """It was not fetched: first in its queue again."""
        images, pages = self._waiting.setdefault(registrable_domain(task.address), (deque(), deque()))
        # a robots.txt that has moved comes before the images, which wait for it
        (pages if task.kind == "page" else images).appendleft(task)
        self._fresh.add(registrable_domain(task.address))

    def follow(self, task: Task, target: str) -> None:
        """A redirect of an image or of robots.txt: the same thing, at another address, next."""
        self.give_back(replace(task, target=target, hops=task.hops + 1))

    @property
    def waiting(self) -> int:
        return sum(len(images) + len(pages) for images, pages in self._waiting.values())

    # --- telling

    def knows(self, url: str) -> bool:
        """Whether the page was found in this cycle or before."""
        return url in self._pages

    def stored_bytes(self, sha256: str) -> Pointer | None:
        """Where a picture with these bytes already is in this cycle."""
        return self._by_digest.get(sha256)

    def images(self) -> Iterator[tuple[Image, dict[str, str]]]:
        """Each image that was asked for, with its sightings {page URL: alt}."""
        return ((image.record, image.sightings) for image in self._images.values() if image.record)

    def counts(self) -> tuple[int, int]:
        """(pages done, images stored)"""
        return sum(page.done for page in self._pages.values()), sum(1 for image in self._images.values() if image.stored)

    def unfinished(self) -> Iterator[Task]:
        """What waits, in order."""
        for images, pages in self._waiting.values():
            yield from images
            yield from pages

    def snapshot(self) -> Snapshot:
        pages = tuple(Known(url, page.referrer, page.depth, page.done) for url, page in self._pages.items())
        left = ((url, image) for url, image in self._images.items() if image.left and image.record is None)
        return Snapshot(pages, images=tuple(Left(url, tuple(image.sightings.items())) for url, image in left))


_decoder = msgspec.msgpack.Decoder(Snapshot)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    return zstandard.compress(msgspec.msgpack.encode(snapshot), 3)


def decode_snapshot(data: bytes) -> Snapshot:
    """Raises Corrupt."""
    try:
        return _decoder.decode(zstandard.decompress(data, max_output_size=1 << 31))
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise Corrupt(f"a frontier snapshot cannot be read: {error}") from error


def replay(frontier: Frontier, records: Iterable[Record]) -> list[Announcement]:
    """Applies the records in order; returns all announcements."""
    return [announcement for record in records for announcement in frontier.apply(record)]
