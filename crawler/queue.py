"""Which request comes next: fair between sessions, polite to domains. This is what Scrapy sees as its scheduler."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Protocol, Self

import structlog
from scrapy import Request, Spider
from scrapy.core.scheduler import BaseScheduler
from scrapy.crawler import Crawler

from core.errors import Unavailable
from core.urls import registrable_domain
from crawler.cycle import Cycle
from crawler.frontier import Task
from crawler.politeness import Politeness
from crawler.rulebook import Rulebook
from crawler.turns import Turns

MAX_UNSTORED = 4
"""Closings of a session that may wait for the store before its crawl waits too."""

log = structlog.get_logger()


class Leases(Protocol):
    """What the dispatcher asks of the leases."""

    def may(self, domain: str, delay: float) -> bool:
        """Whether a request to the domain may be handed out, and its next holder would wait out this delay."""

    def lasts(self, domain: str) -> bool:
        """Whether the lease lasts: what is stored under it counts."""


class Dispatcher:
    """Hands out tasks: a heap of the times at which domains may be asked, and in each domain the sessions in turn."""

    def __init__(self, politeness: Politeness, rulebook: Rulebook, leases: Leases, monotonic: Callable[[], float]) -> None:
        self._politeness = politeness
        self._rulebook = rulebook
        self._leases = leases
        self._monotonic = monotonic
        self._heap: list[tuple[float, str]] = []
        self._queued: dict[str, float] = {}
        self._turns: dict[str, Turns] = {}
        self._held_until = 0.0
        self.wanted: set[str] = set()
        """Domains with work for which the lease is not held, or does not tell of the delay yet."""

    def join(self, cycle: Cycle) -> None:
        """The cycle has new work on some domains."""
        for domain in cycle.frontier.fresh_domains():
            self._turns.setdefault(domain, Turns()).add(cycle)
            self.wake(domain)

    def leave(self, cycle: Cycle) -> None:
        for domain, turns in list(self._turns.items()):
            if cycle in turns:
                turns.remove(cycle)
            if not turns:
                del self._turns[domain]

    def in_use(self, domain: str) -> bool:
        """Whether a request to it is on its way, or a running cycle has work there."""
        return self.under_way(domain) or any(cycle.frontier.waits_for(domain) for cycle in self._running(domain))

    def under_way(self, domain: str) -> bool:
        """Whether a request to it was handed out and has not ended."""
        return self._politeness.in_flight(domain) > 0

    def runs_on(self, domain: str) -> bool:
        """Whether a running cycle has or had work there."""
        return bool(self._running(domain))

    def _running(self, domain: str) -> list[Cycle]:
        return [cycle for cycle in self._turns.get(domain, ()) if not cycle.ending]

    def wake(self, domain: str, at: float = 0.0) -> None:
        """Looks at the domain at `at` (monotonic), or before if somebody else wants it."""
        if at < self._queued.get(domain, float("inf")):
            self._queued[domain] = at
            heapq.heappush(self._heap, (at, domain))

    def next_time(self) -> float | None:
        """When to ask again, in monotonic seconds."""
        return max(self._heap[0][0], self._held_until) if self._heap else None

    def hold(self, until: float) -> None:
        """Nothing goes out before then (monotonic)."""
        self._held_until = max(self._held_until, until)

    def next(self) -> tuple[Cycle, Task] | None:
        """A task that may be fetched now."""
        now = self._monotonic()
        if now < self._held_until:
            return None
        while self._heap and self._heap[0][0] <= now:
            at, domain = heapq.heappop(self._heap)
            if self._queued.get(domain) != at:  # it was woken earlier than that
                continue
            del self._queued[domain]
            delay = self.delay(domain)
            if not self._leases.may(domain, delay):
                self.wanted.add(domain)
                continue
            try:
                if picked := self._pick(domain, delay, now):
                    return picked
            except Unavailable as error:  # what is skipped could not be written down
                log.error("crawler.disk", code=error.code, details=error.details)
                self.wake(domain)
                self.hold(now + error.retry_after)
                return None
        return None

    def _pick(self, domain: str, delay: float, now: float) -> tuple[Cycle, Task] | None:
        clock = self._politeness.clock(domain)
        allowed = clock.allowed_at(now, delay)
        if allowed is None:
            return None
        if allowed > now:
            self.wake(domain, allowed)
            return None
        later = float("inf")
        turns = self._turns.get(domain, Turns())
        for cycle in turns:
            if cycle.ending or cycle.unstored >= MAX_UNSTORED or not self._leases.lasts(cycle.session.domain):
                continue
            at = clock.session_allowed_at(cycle.session.id, cycle.session.download_delay)
            if at > now:
                later = min(later, at)
            elif task := cycle.next(domain, self._rulebook):
                turns.served(cycle)
                cycle.in_flight += 1
                clock.started()
                self.wake(domain)
                return cycle, task
        if later < float("inf"):
            self.wake(domain, later)
        return None

    def ended(self, cycle: Cycle, task: Task, answered_at: float | None) -> None:
        """The request is over: answered or given up at that time, or (None) never sent."""
        domain = registrable_domain(task.address)
        cycle.in_flight -= 1
        self._politeness.clock(domain).ended(cycle.session.id, answered_at, self.delay(domain, cycle))
        self.wake(domain)

    def delay(self, domain: str, asker: Cycle | None = None) -> float:
        """Between two requests to the domain, as its running sessions and robots.txt have it."""
        running = self._running(domain)
        if asker is not None:
            running.append(asker)
        clock = self._politeness.clock(domain)
        clock.crawl_delay = self._rulebook.crawl_delay(domain, (cycle.agent for cycle in running))
        return clock.delay(cycle.session.download_delay for cycle in running)


class SessionQueue(BaseScheduler):
    """Scrapy's scheduler seam: the dispatcher's tasks as requests. Nothing is enqueued through it; the frontiers hold what waits."""

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> Self:
        return cls(crawler)

    def open(self, spider: Spider) -> None:
        self._desk = spider.desk  # type: ignore[attr-defined]
        self._desk.set_poke(self.poke)

    def has_pending_requests(self) -> bool:
        """The engine stays open until the worker stops it."""
        return True

    def enqueue_request(self, request: Request) -> bool:
        raise NotImplementedError(f"the spider yields no requests, yet {request.url} came")

    def next_request(self) -> Request | None:
        picked = self._desk.dispatcher.next()
        if picked is None:
            self._wait()
            return None
        return self._desk.spider.request(*picked)  # type: ignore[no-any-return]

    def poke(self) -> None:
        """Makes the engine ask again."""
        slot = self._crawler.engine._slot if self._crawler.engine else None  # the engine offers no public way
        if slot is not None:
            slot.nextcall.schedule()

    def _wait(self) -> None:
        at = self._desk.dispatcher.next_time()
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(max(at, loop.time()), self.poke) if at is not None else None
