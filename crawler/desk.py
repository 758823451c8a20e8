"""Answers come: each is filed in its cycle, robots.txt also in the rulebook."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from core.errors import AddressRefused, FiligraneError, Unavailable
from core.urls import origin, registrable_domain
from crawler.cycle import MAX_HOPS, Cycle
from crawler.exchange import DownloadError, Exchange, Guard, NotSent
from crawler.figures import bytes_total, requests_total
from crawler.frontier import Task
from crawler.robots import Robots
from crawler.running import Running
from crawler.spider import SessionSpider

FULL_FOR: Final = 5.0
"""Seconds after which a full disk is tried again."""
RECORD_BYTES: Final = 1 << 20
"""What the records of an answer take at most, beside the links of a page."""

log = structlog.get_logger()


class Desk:
    """Where Scrapy's answers go. `after` is called when a cycle has learned something."""

    spider: SessionSpider

    def __init__(self, running: Running, after: Callable[[Cycle], None]) -> None:
        self._running = running
        self._after = after
        self.dispatcher = running.dispatcher

    def set_poke(self, poke: Callable[[], None]) -> None:
        self._running.poke = poke

    def guard(self, cycle: Cycle, task: Task) -> Guard:
        """Whether the request may still be sent: under the leases of now, on the host's domain and on the session's."""
        there = self._running.holdings.guard(registrable_domain(task.address))
        home = self._running.holdings.guard(cycle.session.domain)
        return lambda: self._running.has(cycle) and there() and home()

    def answered(self, cycle: Cycle, task: Task, exchange: Exchange) -> None:
        """Scrapy has an answer."""
        requests_total.labels(task.kind, str(exchange.status)).inc()
        bytes_total.labels(task.kind).inc(len(exchange.body))
        if not self._is_over(cycle, task, exchange.answered_at):
            return
        room = RECORD_BYTES + (0 if task.kind == "image" else 4 * len(exchange.decoded))
        if self._file(cycle, task, partial(cycle.answered, task, exchange), room) and task.kind == "robots":
            self._learn_robots(cycle, task, exchange)
        self._after(cycle)

    def failed(self, cycle: Cycle, task: Task, error: BaseException) -> None:
        """Scrapy has no answer."""
        reason = error.reason if isinstance(error, DownloadError) else error.code if isinstance(error, FiligraneError) else "internal"
        if reason == "internal":
            log.error("crawler.request_failed", url=task.address, error=repr(error))
        requests_total.labels(task.kind, reason).inc()
        if isinstance(error, NotSent):
            self._not_sent(cycle, task)
            return
        if not self._is_over(cycle, task, self._running.services.clock.monotonic()):
            return
        refused = isinstance(error, AddressRefused)
        if self._file(cycle, task, partial(cycle.refuse if refused else cycle.failed, task, reason)) and task.kind == "robots":
            # behind a refused address each URL is then refused by itself, and counted
            self._set_robots(task, Robots.allow_all() if refused else Robots.from_answer(None, b""))
        self._after(cycle)

    def _not_sent(self, cycle: Cycle, task: Task) -> None:
        """It waits again, for the next lease."""
        if self._is_over(cycle, task, None):
            cycle.put_back(task)
            self._after(cycle)

    def _is_over(self, cycle: Cycle, task: Task, answered_at: float | None) -> bool:
        """The request has ended; False when its cycle is not ours any more."""
        self._running.dispatcher.ended(cycle, task, answered_at)
        if task.kind == "robots":
            self._running.rulebook.forget(origin(task.url))
        return self._running.has(cycle)

    def _file(self, cycle: Cycle, task: Task, call: Callable[[], None], room: int = RECORD_BYTES) -> bool:
        """Journals what `call` does. With a full disk nothing is written: the task waits again, and so does everybody for a while."""
        try:
            self._running.journal.reserve(room)
            call()
        except Unavailable as error:
            log.error("crawler.disk", code=error.code, details=error.details)
            cycle.put_back(task)
            self._running.dispatcher.hold(self._running.services.clock.monotonic() + min(error.retry_after, FULL_FOR))
            return False
        except Exception:
            log.exception("crawler.answer_failed", session=cycle.session.id, url=task.address)
            cycle.failed(task, "internal")
        return True

    def _learn_robots(self, cycle: Cycle, task: Task, exchange: Exchange) -> None:
        target = cycle.robots_redirect(task, exchange)
        if target and task.hops < MAX_HOPS // 2 and registrable_domain(target) == registrable_domain(task.url):
            cycle.frontier.follow(task, target)
            self._running.rulebook.ask(origin(task.url))  # still: nobody else needs to
        else:
            self._set_robots(task, Robots.from_answer(exchange.status, exchange.decoded))

    def _set_robots(self, task: Task, rules: Robots) -> None:
        self._running.rulebook.learn(origin(task.url), rules)
        self._running.dispatcher.wake(registrable_domain(task.url))
