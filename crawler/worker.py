"""One crawler process: takes domains, runs their sessions in one Scrapy engine, stores what they find, and ends their cycles."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from logging import ERROR, INFO
from typing import Any, Final

import structlog
from scrapy.crawler import Crawler
from scrapy.settings import Settings

from core.errors import Conflict, FiligraneError, NotFound, ObjectMissing, Unavailable
from core.events import SESSIONS
from core.leases import Held
from core.models import CrawlSession
from core.monitor import beat
from core.repo import crawls
from core.services import Services
from crawler import artifacts, figures, place
from crawler.cycle import Cycle, Progress, drop_local
from crawler.desk import FULL_FOR, Desk
from crawler.frontier import Frontier
from crawler.leasing import Leasing
from crawler.place import Place
from crawler.publish import Closing
from crawler.recover import over, recover
from crawler.running import Running
from crawler.spider import SETTINGS, SessionSpider
from crawler.storing import Storing
from crawler.threads import Threads

AGENT: Final = "filigrane/0.1"
"""Operators who want to be reached set a session's user_agent."""
TICK: Final = 0.05
LOOK: Final = 1.0
"""Seconds between looks at the database for sessions that wait, are paused or deleted, and for leases."""
AT_A_LOOK: Final = 8
"""Sessions that a look begins: the other workers look too, and are to find some."""
AGAIN: Final = 0.25
"""Seconds until the next look where there may be more: in between the others look."""
REFUSED_FOR: Final = 2.0
"""Seconds before a session that could not begin is tried again."""
DRAIN: Final = 18.0
"""Seconds for what is in flight to arrive (half of them) and to be stored; what is not is on this disk."""
GOODBYE: Final = 5.0
"""Seconds that giving the leases back may take at the end; then they run out. Ending the engine has half as long."""
SKIPS_AT_ONCE: Final = 1000
"""URLs that are skipped between two looks at everything else."""
HANDED_OVER: Final = "handed over"

log = structlog.get_logger()


class Worker:
    """Owns the event loop's side of everything; blocking calls run in threads."""

    def __init__(self, services: Services, own: Place, stop: threading.Event, only_session: int | None) -> None:
        self._services = services
        self._only_session = only_session
        self._place = own
        self._stop = stop
        self._threads = Threads(2, "look")
        self._running = Running(services, own)
        self._storing = Storing(self._running)
        self._leasing = Leasing(self._running, self._hand_over)
        self._desk = Desk(self._running, self._after)
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused_until: dict[int, float] = {}
        self._news = threading.Event()
        self._again_at = float("inf")
        self._draining = False
        self._tidied = False
        self._looking = asyncio.Lock()

    # --- the life of the process

    async def run(self) -> None:
        """Until told to stop; then drains."""
        settings = Settings(SETTINGS)
        settings.set("FILIGRANE_ALLOW_NETWORKS", list(self._services.settings.allow_networks))
        crawler = Crawler(SessionSpider, settings)
        engine = asyncio.create_task(crawler.crawl_async(self._desk))
        figures.watch(self._running.cycles, self._running.holdings)
        threading.Thread(target=self._listen, name="sessions", daemon=True).start()
        every = ((TICK, self._tick), (LOOK, self._look), (LOOK, self._leasing.look), (TICK, self._leasing.want))
        jobs = [asyncio.create_task(self._every(seconds, job)) for seconds, job in every]
        while not self._stop.is_set() and not engine.done():
            await asyncio.sleep(TICK)
        await self._drain()
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # it waits for requests that nobody waits for any more
            await asyncio.wait_for(self._stop_engine(crawler, engine), GOODBYE / 2)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._leasing.close(), GOODBYE)
        self._running.journal.close()
        self._threads.close()

    async def _stop_engine(self, crawler: Crawler, engine: asyncio.Task[None]) -> None:
        if not engine.done():
            await crawler.stop_async()
        await engine

    async def _every(self, seconds: float, job: Callable[[], object]) -> None:
        while True:
            pause = seconds
            try:
                result = job()
                if asyncio.iscoroutine(result):
                    await result
            except FiligraneError as error:
                log.warning("crawler.job_failed", job=getattr(job, "__name__", ""), code=error.code, details=error.details)
                pause = max(seconds, LOOK)
            except Exception:
                log.exception("crawler.job_failed", job=getattr(job, "__name__", ""))
                pause = max(seconds, LOOK)
            await asyncio.sleep(pause)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _listen(self) -> None:
        """`sessions` messages only hurry the next look at the database, which is the truth."""
        while not self._stop.is_set():
            try:
                with contextlib.closing(self._services.bus.follow(SESSIONS, "latest")) as follower:
                    while not self._stop.is_set():
                        if follower.poll(0.5):
                            self._news.set()
            except Unavailable as error:
                log.warning("crawler.listen_failed", code=error.code, details=error.details)
                self._stop.wait(LOOK)

    # --- sessions come

    async def _look(self) -> None:
        """Begins some of what waits; ends what was paused or deleted. One look at a time: no session may begin twice."""
        async with self._looking:
            if not self._tidied:
                await self._tidy()
            await self._check()
            now, self._again_at = self._services.clock.monotonic(), float("inf")
            self._refused_until = {key: until for key, until in self._refused_until.items() if until > now}
            for session in await self._waiting():
                if not self._draining and session.domain not in self._leasing.closed():
                    await self._try(session)
                if session.id in self._running.cycles:
                    self._again_at = now + AGAIN

    async def _tidy(self) -> None:
        """What an earlier process left of cycles that are over is of no use any more."""
        journal, folder = self._running.journal, self._place.folder
        for key in await self._threads.run(over, self._services, folder, list(journal.left)):
            journal.left.pop(key, None)
            journal.cover(*key)
            drop_local(folder, *key)
        self._tidied = True

    async def _check(self) -> None:
        states = await self._threads.run(self._states, list(self._running.cycles))
        for cycle in list(self._running.cycles.values()):
            if cycle.session.id not in states:
                self._running.lose(cycle, "deleted")
            elif states[cycle.session.id] == "paused" and not cycle.ending:
                self._end(cycle, "paused")

    def _states(self, sessions: list[int]) -> dict[int, str]:
        with self._services.database.read() as tx:
            return crawls.states(tx, sessions)

    async def _waiting(self) -> list[CrawlSession]:
        """As many as there is room for, a few at most."""
        running, settings = self._running.cycles, self._services.settings
        room = min(AT_A_LOOK, settings.crawler_sessions - len(running))
        if room <= 0 or self._draining:
            return []
        return await self._threads.run(self._found, room, [*running, *self._refused_until], self._leasing.closed())

    def _found(self, room: int, beside: list[int], closed: set[str]) -> list[CrawlSession]:
        with self._services.database.read() as tx:
            now, holder = self._services.clock.now(), self._place.holder
            return crawls.waiting(tx, room, holder=holder, now=now, beside=beside, closed=closed, only=self._only_session)

    async def _try(self, session: CrawlSession) -> None:
        """A session that cannot begin does not keep the others waiting."""
        self._leasing.opening = session.domain
        try:
            await self._begin(session)
        except (Conflict, NotFound) as error:
            missing = isinstance(error, ObjectMissing)
            log.log(ERROR if missing else INFO, "crawler.not_begun", session=session.id, code=error.code, reason=error.details)
            self._refuse(session.id)
        except Exception as error:
            log.error("crawler.not_begun", session=session.id, kind=type(error).__name__, reason=str(error))
            self._refuse(session.id)
        finally:
            self._leasing.opening = ""

    def _refuse(self, session: int) -> None:
        self._refused_until[session] = self._services.clock.monotonic() + REFUSED_FOR

    async def _begin(self, session: CrawlSession) -> None:
        held = await self._leasing.take(session.domain, session.download_delay)
        if held is None:
            return
        cycle, closing = await self._threads.run(self._open_cycle, held, session.id)
        if self._draining or not self._running.holdings.has(held):  # whoever comes next goes on with it
            return
        self._running.journal.left.pop(cycle.key, None)
        self._running.cycles[session.id] = cycle
        if closing is not None:
            self._storing.start(cycle, closing)
        log.info("crawler.cycle_running", session=session.id, cycle=cycle.key[1], epoch=held.epoch, waiting=cycle.frontier.waiting)
        self._running.dispatcher.join(cycle)
        self._running.poke()

    def _open_cycle(self, held: Held, session_id: int) -> tuple[Cycle, Closing | None]:
        with self._services.database.write() as tx:
            session = crawls.begin_cycle(tx, held, session_id, self._services.clock.now())
        left = self._running.journal.left.get((session.id, session.cycle_count), [])
        frontier, progress, closing = recover(self._services, held, session, left, self._place.folder)
        return self._cycle(session, held, frontier, progress), closing

    def _cycle(self, session: CrawlSession, held: Held, frontier: Frontier, progress: Progress) -> Cycle:
        return Cycle(
            session,
            held,
            frontier,
            progress,
            folder=self._place.folder,
            journal=self._running.journal,
            clock=self._services.clock,
            agent=AGENT,
            segment_seconds=self._services.settings.segment_seconds,
        )

    # --- cycles run

    def _after(self, cycle: Cycle) -> None:
        """It has learned something."""
        self._running.dispatcher.join(cycle)
        if cycle.closing_due():
            self._storing.close_segments(cycle)
        self._maybe_end(cycle)

    def _tick(self) -> None:
        """Group commit of the local files, closings that are due, cycles whose time is over."""
        beat()
        for cycle in list(self._running.cycles.values()):
            cycle.sync()
            if cycle.closing_due():
                self._storing.close_segments(cycle)
            self._maybe_end(cycle)
        self._running.journal.sync()
        is_time = self._services.clock.monotonic() >= self._again_at
        if (self._news.is_set() or is_time) and not self._looking.locked():
            self._news.clear()
            self._spawn(self._look())

    # --- cycles end

    def _maybe_end(self, cycle: Cycle) -> None:
        if not cycle.ending and not self._draining:
            if cycle.elapsed >= cycle.session.crawl_delay:
                self._end(cycle, "time")
            elif not cycle.in_flight and not cycle.has_work():
                self._end(cycle, "done")

    def _end(self, cycle: Cycle, why: str) -> None:
        cycle.ending = why
        self._spawn(self._finish(cycle))

    async def _finish(self, cycle: Cycle) -> None:
        while cycle.in_flight and not cycle.lost:
            await asyncio.sleep(TICK)
        if cycle.lost:
            return
        self._running.let_go(cycle)
        while not cycle.lost and await self._skip_rest(cycle):
            await asyncio.sleep(0)
        await self._store_all(cycle)
        async with cycle.storing:
            args = (self._services, cycle.held, cycle.session, cycle.frontier, self._place.folder)
            state = await self._storing.until_done(cycle, "finish", artifacts.finish, *args)
        if state is None or not self._running.has(cycle):
            return
        self._running.leave(cycle)
        pages, images = cycle.frontier.counts()
        log.info("crawler.cycle_done", session=cycle.session.id, cycle=cycle.key[1], state=state, pages=pages, images=images)

    async def _store_all(self, cycle: Cycle) -> None:
        self._storing.close_segments(cycle, everything=True)
        while cycle.unstored and not cycle.lost:
            await asyncio.sleep(TICK)

    async def _skip_rest(self, cycle: Cycle) -> bool:
        """Some of what still waits; whether there is more."""
        try:
            return cycle.skip_rest(cycle.ending, SKIPS_AT_ONCE, self._leasing.is_busy)
        except Unavailable as error:
            log.error("crawler.disk", code=error.code, details=error.details)
            await asyncio.sleep(min(error.retry_after, FULL_FOR))
            return True

    def _hand_over(self, cycle: Cycle) -> None:
        """Somebody else asks for its domain: its session stays running, for whoever takes the domain next."""
        cycle.ending = HANDED_OVER
        self._spawn(self._leave(cycle, float("inf")))

    async def _leave(self, cycle: Cycle, patience: float) -> None:
        """What is in flight may arrive for so many seconds; then everything is stored."""
        until = self._services.clock.monotonic() + patience
        while cycle.in_flight and not cycle.lost and self._services.clock.monotonic() < until:
            await asyncio.sleep(TICK)
        if not cycle.lost:
            self._running.let_go(cycle)
            await self._store_all(cycle)
        if self._running.has(cycle):
            self._running.leave(cycle)
            log.info("crawler.cycle_handed_over", session=cycle.session.id, cycle=cycle.key[1], epoch=cycle.held.epoch)

    async def _drain(self) -> None:
        """Lets what is in flight arrive and stores it; the sessions stay running for whoever comes next."""
        self._draining = True
        until = self._services.clock.monotonic() + DRAIN
        for cycle in list(self._running.cycles.values()):
            if not cycle.ending:
                cycle.ending = HANDED_OVER
                self._spawn(self._leave(cycle, DRAIN / 2))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=DRAIN)
        for task in self._tasks:
            task.cancel()
        await self._storing.settle(until - self._services.clock.monotonic())


def run(services: Services, stop: threading.Event, *, name: str | None = None, only_session: int | None = None) -> None:
    """A crawler process, until `stop` is set. `name` is its local folder, for one process at a time; None = the first free one.

    `only_session`: it crawls this one and leaves the others waiting.

    Raises Conflict when another process has the name.
    """
    with place.taken(services.settings.data, name) as own, structlog.contextvars.bound_contextvars(holder=own.holder):
        log.info("crawler.running", place=own.folder.name)
        asyncio.run(_start(services, own, stop, only_session))


async def _start(services: Services, own: Place, stop: threading.Event, only_session: int | None) -> None:
    # made inside of the loop: its locks and events belong to it
    await Worker(services, own, stop, only_session).run()
