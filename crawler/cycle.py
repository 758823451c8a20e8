"""One crawl of a session: answers become records, pictures and pages go to segments, and a closing cuts what is to be stored.

Nothing here waits or fetches: the worker calls in with answers and takes tasks and closings out.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from core.clock import Clock
from core.errors import Unavailable
from core.imageinfo import image_info, sniff
from core.leases import Held
from core.models import CrawlSession, Segment
from core.urls import normalise, origin, registrable_domain
from crawler.exchange import Exchange
from crawler.extract import Extracted, extract
from crawler.frontier import HOST_BUSY, Announcement, Frontier, Task
from crawler.journal import Entry, Image, Journal, Page, Piece, Record, Skip
from crawler.opened import OpenSegments
from crawler.publish import Closing
from crawler.rulebook import Rulebook

MAX_DEPTH: Final = 20
MAX_HOPS: Final = 10
MAX_TRIES: Final = 2
LIMITS: Final = {"page": 8 << 20, "image": 64 << 20, "robots": 512 << 10}
"""Bytes of a body. A page is cut there, a larger picture is refused."""
PAGE_TYPES: Final = frozenset({"text/html", "application/xhtml+xml"})


@dataclass(slots=True)
class Progress:
    """How far a cycle is, as its start or a replay left it."""

    records: int = 0
    elapsed: float = 0.0
    pages: int = 0
    next_seq: dict[str, int] = field(default_factory=lambda: {"tar": 0, "warc": 0, "journal": 0})
    tar_keys: dict[int, str] = field(default_factory=dict)


class Cycle:
    """A running cycle. Used by the worker's event loop alone."""

    def __init__(
        self,
        session: CrawlSession,
        held: Held,
        frontier: Frontier,
        progress: Progress,
        *,
        folder: Path,
        journal: Journal,
        clock: Clock,
        agent: str,
        segment_seconds: float,
    ) -> None:
        self.session = session
        self.held = held
        self.frontier = frontier
        self.progress = progress
        self.agent = session.user_agent or agent
        self._folder = folder
        self._journal = journal
        self._clock = clock
        self._segments = OpenSegments(
            progress.next_seq,
            partial(local_path, folder, *self.key),
            software=self.agent,
            seconds=segment_seconds,
            monotonic=clock.monotonic,
        )
        self._started = clock.monotonic() - progress.elapsed
        self._records: list[Record] = []
        self._announcements: list[Announcement] = []
        self.in_flight = 0
        """Requests that were handed out and not answered."""
        self.unstored = 0
        """Closings that are not stored yet."""
        self.ending = ""
        """Why the cycle ends; empty while it runs."""
        self.lost = False
        """Dropped: another holder, or deleted."""
        self.storing = asyncio.Lock()

    @property
    def key(self) -> tuple[int, int]:
        return self.session.id, self.session.cycle_count

    @property
    def elapsed(self) -> float:
        """Seconds of crawling so far, over all processes that ran this cycle."""
        return self._clock.monotonic() - self._started

    def has_work(self) -> bool:
        """Whether something waits that this cycle may still ask for."""
        return self.frontier.waits(pages=self._pages_left())

    # --- what to fetch

    def next(self, domain: str, rulebook: Rulebook) -> Task | None:
        """The next task on a domain that robots.txt allows; its robots.txt when that is not known yet; None while somebody fetches it."""
        while task := self.frontier.take(domain, pages=self._pages_left()):
            if task.kind != "robots" and self.session.robots:
                site = origin(task.address)
                rules = rulebook.rules(site)
                if rules is None:
                    self.frontier.give_back(task)
                    return Task("robots", f"{site}/robots.txt", task.address) if rulebook.ask(site) else None
                if not rules.allowed(task.address, self.agent):
                    self._skip(task, rules.refusal)
                    continue
            if task.kind == "page":
                self.progress.pages += 1
            return task
        return None

    def put_back(self, task: Task) -> None:
        """It was fetched in vain: again, later."""
        if task.kind != "robots":
            self._not_asked(task)
            self.frontier.give_back(task)

    def _pages_left(self) -> bool:
        return self.session.max_pages is None or self.progress.pages < self.session.max_pages

    def _not_asked(self, task: Task) -> None:
        """The budget of pages has it again."""
        if task.kind == "page":
            self.progress.pages -= 1

    def _skip(self, task: Task, reason: str) -> None:
        try:
            self._record(Skip(task.url, task.referrer, reason, task.kind == "image"))
        except Unavailable:
            self.frontier.give_back(task)
            raise

    def refuse(self, task: Task, reason: str) -> None:
        """Its address may not be asked."""
        if task.kind != "robots":
            self._not_asked(task)
            self._skip(task, reason)

    def skip_rest(self, reason: str, limit: int, is_busy: Callable[[str], bool]) -> bool:
        """The cycle ends: what still waits is for the next one. Skips some and tells whether more is left.

        `is_busy`: whether another worker has a domain.

        Raises:
            Unavailable: the disk is full; call again.
        """
        for domain in list(self.frontier.domains()):
            why = HOST_BUSY if is_busy(domain) else reason
            while limit and (task := self.frontier.take(domain)):
                limit -= 1
                if task.kind != "robots":  # that was asked for already, where it no longer is
                    self._skip(task, "budget" if task.kind == "page" and not self._pages_left() else why)
        return not limit

    # --- what was answered

    def wants(self, task: Task, status: int, content_type: str) -> bool:
        """Whether the body of this answer is worth reading, as far as its head tells."""
        if task.kind == "robots" or status >= 300 or not content_type:
            return True
        return not content_type.startswith("text/") if task.kind == "image" else _is_page_or_image(content_type)

    def answered(self, task: Task, exchange: Exchange) -> None:
        """Files an answer."""
        if task.kind == "image":
            self._image(task, exchange)
        else:
            self._page(task, exchange)

    def failed(self, task: Task, reason: str) -> None:
        """Files that no answer came. A page is asked for once more, last."""
        at = self._clock.now().timestamp()
        if task.kind == "image":
            self._record(Image(task.url, task.referrer, "failed", at, self.elapsed, task.alt, reason=reason, also=task.also))
            return
        retry = task.kind == "page" and task.failures + 1 < MAX_TRIES
        self._record(
            Page(
                task.address, task.referrer, task.depth, "failed", at, self.elapsed,
                reason=reason, hops=task.hops, robots=task.kind == "robots", retry=retry,
            ),
        )  # fmt: skip

    def _page(self, task: Task, exchange: Exchange) -> None:
        """A page, a redirect's hop or a robots.txt."""
        content_type = exchange.content_type or (sniff(exchange.decoded) or "")
        readable = task.kind == "page" and exchange.status == 200 and not exchange.refused
        refused = exchange.refused or ("type" if readable and not _is_page_or_image(content_type) else "")
        found = self._look(task, exchange) if readable and content_type in PAGE_TYPES else Extracted.nothing()
        links, skipped = self._sort_links(task, found)
        target, why = self._redirect(task, exchange) if task.kind == "page" else ("", "")
        if why:
            skipped.append((target, why))
        if found.surplus:
            skipped.append((task.address, "surplus"))  # further URLs on this page are not looked at
        # a picture at a page's address is filed as both; its bytes are written before anything is said
        shown = readable and not refused and content_type.startswith("image/")
        image = self._picture(Task("image", task.url, task.referrer), exchange) if shown else None
        record = Page(
            task.address,
            task.referrer,
            task.depth,
            "refused" if refused else "truncated" if exchange.truncated else "fetched",
            exchange.at.timestamp(),
            self.elapsed,
            exchange.status,
            content_type,
            None if exchange.refused else len(exchange.body),
            "" if exchange.refused else hashlib.sha256(exchange.body).hexdigest(),
            exchange.header("etag"),
            exchange.header("last-modified"),
            reason=refused or exchange.truncated or "",
            warc=None if refused else self._segments.archive(task.address, exchange),
            redirect="" if why else target,
            hops=task.hops,
            robots=task.kind == "robots",
            links=tuple(links),
            images=found.images,
            videos=found.videos,
            documents=found.documents,
            skipped=tuple(skipped),
        )
        self._record(record)
        if image is not None:
            self._record(image)

    def _look(self, task: Task, exchange: Exchange) -> Extracted:
        return extract(exchange.decoded, exchange.header("content-type"), task.address)

    def _sort_links(self, task: Task, found: Extracted) -> tuple[list[str], list[tuple[str, str]]]:
        """(links to follow, links that are never requested and why)"""
        if found.nofollow and self.session.robots:
            return [], [(url, "nofollow") for url in found.links]
        links: list[str] = []
        skipped: list[tuple[str, str]] = []
        too_deep = task.depth >= (MAX_DEPTH if self.session.max_depth is None else self.session.max_depth)
        for url in found.links:
            if registrable_domain(url) != self.session.domain:
                skipped.append((url, "scope"))
            elif too_deep and not self.frontier.knows(url):
                skipped.append((url, "depth"))
            else:
                links.append(url)
        return links, skipped

    def _redirect(self, task: Task, exchange: Exchange) -> tuple[str, str]:
        """(where a hop leads, why it is not followed)"""
        if not _is_hop(exchange):
            return "", ""
        location = exchange.header("location")
        target = normalise(location, task.address)
        if target is None:
            return location[:2048], "url"
        if task.kind == "page" and registrable_domain(target) != self.session.domain:
            return target, "scope"
        return target, "redirects" if task.hops >= MAX_HOPS else ""

    def robots_redirect(self, task: Task, exchange: Exchange) -> str:
        """Where a robots.txt has moved to; empty = nowhere."""
        target, why = self._redirect(task, exchange)
        return "" if why else target

    def _image(self, task: Task, exchange: Exchange) -> None:
        target, why = self._redirect(task, exchange)
        if target and not why:
            self.frontier.follow(task, target)
        else:
            self._record(self._picture(task, exchange, why))

    def _picture(self, task: Task, exchange: Exchange, why: str = "") -> Image:
        """The record of an image; what is a picture is kept."""
        kind = sniff(exchange.decoded) if exchange.status == 200 and not exchange.refused else None
        reason = why or _why_no_picture(exchange, kind)
        base = Image(
            task.url, task.referrer, "refused" if reason and exchange.status == 200 else "fetched", exchange.at.timestamp(), self.elapsed,
            task.alt, exchange.status, exchange.content_type, bytes=None if exchange.refused else len(exchange.body),
            last_modified=exchange.header("last-modified"), reason=reason, also=task.also,
        )  # fmt: skip
        return base if reason or kind is None else self._store_picture(base, exchange.decoded, kind)

    def _store_picture(self, base: Image, data: bytes, kind: str) -> Image:
        info = image_info(data)
        sha256 = hashlib.sha256(data).hexdigest()
        return Image(
            base.url, base.page_url, base.outcome, base.at, base.elapsed, base.alt, base.status, kind, info.width, info.height, len(data),
            hashlib.md5(data, usedforsecurity=False).hexdigest(), sha256, base.last_modified, info.credit or "",
            tar=self.frontier.stored_bytes(sha256) or self._segments.keep(sha256, data, kind, base.at), also=base.also,
        )  # fmt: skip

    def _record(self, record: Record) -> None:
        """Segment bytes came first, now the journal, then the frontier: a record never points to what is not there."""
        self._journal.append(Entry(*self.key, self.held.epoch, self.progress.records, record))
        self.progress.records += 1
        self._records.append(record)
        self._announcements.extend(self.frontier.apply(record))

    # --- what is to be stored

    def sync(self) -> None:
        """Makes the open segments durable."""
        self._segments.sync()

    def closing_due(self) -> bool:
        return self._segments.due()

    def close_segments(self, *, everything: bool = False) -> Closing | None:
        """Cuts a piece and closes the open TAR segment, and the WARC segment when it is due or everything is."""
        with_warc = self._segments.warc_due() or (everything and self._segments.has_warc())
        if not self._records and not with_warc:
            return None
        segments = self._segments.close(with_warc=with_warc)
        piece = Piece(self.progress.records - len(self._records), tuple(self._records))
        closing = Closing(self.progress.next_seq["journal"], piece, segments, tuple(self._announcements))
        self.progress.next_seq["journal"] += 1
        self._records, self._announcements = [], []
        return closing

    def stored(self, rows: list[Segment]) -> None:
        """The rows of a closing are committed."""
        self.progress.tar_keys.update({row.seq: row.key for row in rows if row.kind == "tar"})

    def drop(self) -> None:
        """The lease is lost or the session deleted: nothing of what is still open counts."""
        self._segments.drop()
        self._records, self._announcements = [], []
        self.lost = True
        drop_local(self._folder, *self.key)


def local_path(folder: Path, session: int, cycle: int, kind: str, seq: int) -> Path:
    """Where the worker keeps a segment until it is stored."""
    return folder / f"{session}-{cycle}-{seq:06d}.{kind}"


def drop_local(folder: Path, session: int, cycle: int) -> None:
    """Deletes what the worker keeps of a cycle."""
    for path in folder.glob(f"{session}-{cycle}-*"):
        path.unlink(missing_ok=True)


def _is_page_or_image(content_type: str) -> bool:
    return content_type in PAGE_TYPES or content_type.startswith("image/")


def _is_hop(exchange: Exchange) -> bool:
    return exchange.status in (301, 302, 303, 307, 308) and bool(exchange.header("location"))


def _why_no_picture(exchange: Exchange, kind: str | None) -> str:
    """Why the answer to an image request is not kept; empty = it is a picture, or an error status that speaks for itself."""
    if exchange.status != 200:
        return ""
    if exchange.refused:
        return "not_an_image" if exchange.refused == "type" else exchange.refused
    if exchange.truncated:
        return "size" if exchange.truncated == "length" else exchange.truncated
    return "" if kind is not None and kind.startswith("image/") else "not_an_image"
