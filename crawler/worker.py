"""One crawler process: takes domains, runs their sessions in one Scrapy engine, stores what they find, and ends their cycles."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from logging import ERROR, INFO
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
from scrapy.crawler import Crawler
from scrapy.settings import Settings

from core.errors import AddressRefused, Conflict, FiligraneError, NotFound, ObjectMissing, StaleLease, Unavailable
from core.events import SESSIONS
from core.leases import Held
from core.models import CrawlSession
from core.monitor import beat
from core.repo import crawls
from core.services import Services
from core.urls import origin, registrable_domain
from crawler import artifacts, figures, publish
from crawler.cycle import MAX_HOPS, Cycle, Progress, drop_local
from crawler.exchange import DownloadError, Exchange
from crawler.figures import bytes_total, closings_total, requests_total
from crawler.frontier import Frontier, Task
from crawler.holdings import TTL, Holdings
from crawler.journal import Journal
from crawler.politeness import Politeness
from crawler.publish import Closing
from crawler.queue import Dispatcher
from crawler.recover import over, recover
from crawler.robots import Robots
from crawler.rulebook import Rulebook
from crawler.spider import SETTINGS, SessionSpider
from crawler.storing import again_and_again, send

AGENT: Final = "filigrane/0.1"
"""Operators who want to be reached set a session's user_agent."""
TICK: Final = 0.05
LOOK: Final = 1.0
"""Seconds between looks at the database for sessions that wait, are paused or deleted."""
REFUSED_FOR: Final = 2.0
"""Seconds before a lease that somebody else has is asked for again, or a session that could not begin."""
DRAIN: Final = 20.0
FULL_FOR: Final = 5.0
"""Seconds after which a full disk is tried again."""
RECORD_BYTES: Final = 1 << 20
"""What the records of an answer take at most, beside the links of a page."""
SKIPS_AT_ONCE: Final = 1000
"""URLs that are skipped between two looks at everything else."""

log = structlog.get_logger()


T = TypeVar("T")


class Worker:
    """Owns the event loop's side of everything; blocking calls run in its threads."""

    spider: SessionSpider
    poke: Callable[[], None]

    def __init__(self, services: Services, folder: Path, name: str, stop: threading.Event, only_session: int | None) -> None:
        self._services = services
        self._only_session = only_session
        self._folder = folder
        self._stop = stop
        self._threads = ThreadPoolExecutor(8, thread_name_prefix="store")
        self._tasks: set[asyncio.Task[None]] = set()
        self._journal = Journal(folder)
        self._rulebook = Rulebook(services.clock.monotonic)
        self._politeness = Politeness()
        self._refused_until: dict[str | int, float] = {}
        self._news = threading.Event()
        self._draining = False
        self._tidied = False
        self._looking = asyncio.Lock()
        self._opening = ""
        self.cycles: dict[int, Cycle] = {}
        self.holdings = Holdings(services, name)
        self.dispatcher = Dispatcher(self._politeness, self._rulebook, self.holdings.may, services.clock.monotonic)
        self.poke = lambda: None

    # --- the life of the process

    async def run(self) -> None:
        """Until told to stop; then drains."""
        settings = Settings(SETTINGS)
        settings.set("FILIGRANE_ALLOW_NETWORKS", list(self._services.settings.allow_networks))
        crawler = Crawler(SessionSpider, settings)
        engine = asyncio.create_task(crawler.crawl_async(self))
        figures.watch(self.cycles, self.holdings)
        threading.Thread(target=self._listen, name="sessions", daemon=True).start()
        jobs = [
            asyncio.create_task(self._every(seconds, job))
            for seconds, job in ((TICK, self._tick), (LOOK, self._look), (TTL / 4, self._renew), (TICK, self._want))
        ]
        while not self._stop.is_set() and not engine.done():
            await asyncio.sleep(TICK)
        await self._drain()
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        if not engine.done():
            await crawler.stop_async()
        await engine
        await self._release(self.holdings.domains())
        self._journal.close()
        self._threads.shutdown()

    async def _every(self, seconds: float, job: Callable[[], object]) -> None:
        while True:
            try:
                result = job()
                if asyncio.iscoroutine(result):
                    await result
            except FiligraneError as error:
                log.warning("crawler.job_failed", job=getattr(job, "__name__", ""), code=error.code, details=error.details)
            except Exception:
                log.exception("crawler.job_failed", job=getattr(job, "__name__", ""))
            await asyncio.sleep(seconds)

    async def _thread(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args))

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
        """Begins what waits; ends what was paused or deleted. One look at a time: no session may begin twice."""
        async with self._looking:
            if not self._tidied:
                await self._tidy()
            for cycle in list(self.cycles.values()):
                await self._check(cycle)
            for session in await self._thread(self._waiting):
                if not self._draining and session.id not in self.cycles and self._is_time(session.domain) and self._is_time(session.id):
                    await self._try(session)
            now = self._services.clock.monotonic()
            self._refused_until = {key: until for key, until in self._refused_until.items() if until > now}

    async def _tidy(self) -> None:
        """What an earlier process left of cycles that are over is of no use any more."""
        for key in await self._thread(over, self._services, self._folder, list(self._journal.left)):
            self._journal.left.pop(key, None)
            self._journal.cover(*key)
            drop_local(self._folder, *key)
        self._tidied = True

    def _is_time(self, key: str | int) -> bool:
        return self._services.clock.monotonic() >= self._refused_until.get(key, 0.0)

    def _refused(self, key: str | int) -> None:
        """A domain that somebody else has, or a session that could not begin, is tried again later."""
        self._refused_until[key] = self._services.clock.monotonic() + REFUSED_FOR

    async def _try(self, session: CrawlSession) -> None:
        """A session that cannot begin does not keep the others waiting."""
        self._opening = session.domain
        try:
            await self._begin(session)
        except (Conflict, NotFound) as error:
            missing = isinstance(error, ObjectMissing)
            log.log(ERROR if missing else INFO, "crawler.not_begun", session=session.id, code=error.code, reason=error.details)
            self._refused(session.id)
        except Exception as error:
            log.error("crawler.not_begun", session=session.id, kind=type(error).__name__, reason=str(error))
            self._refused(session.id)
        finally:
            self._opening = ""

    def _waiting(self) -> list[CrawlSession]:
        with self._services.database.read() as tx:
            found = crawls.waiting(tx, 1000)
        return [session for session in found if self._only_session in (None, session.id)]

    async def _begin(self, session: CrawlSession) -> None:
        mine = self.holdings.held(session.domain)
        held = await self._thread(self.holdings.acquire, session.domain)
        if held is None:
            self._refused(session.domain)
            return
        self._wait_out(session.domain, mine, held, session.download_delay)
        cycle, closing = await self._thread(self._open_cycle, held, session.id)
        if self._draining:  # whoever comes next goes on with it
            return
        self._journal.left.pop(cycle.key, None)
        self.cycles[session.id] = cycle
        if closing is not None:
            self._start_storing(cycle, closing)
        log.info("crawler.cycle_running", session=session.id, cycle=cycle.key[1], epoch=held.epoch, waiting=cycle.frontier.waiting)
        self.dispatcher.join(cycle)
        self.poke()

    def _open_cycle(self, held: Held, session_id: int) -> tuple[Cycle, Closing | None]:
        with self._services.database.write() as tx:
            session = crawls.begin_cycle(tx, held, session_id, self._services.clock.now())
        left = self._journal.left.get((session.id, session.cycle_count), [])
        frontier, progress, closing = recover(self._services, held, session, left, self._folder)
        return self._cycle(session, held, frontier, progress), closing

    def _cycle(self, session: CrawlSession, held: Held, frontier: Frontier, progress: Progress) -> Cycle:
        return Cycle(
            session,
            held,
            frontier,
            progress,
            folder=self._folder,
            journal=self._journal,
            clock=self._services.clock,
            agent=AGENT,
            segment_seconds=self._services.settings.segment_seconds,
        )

    async def _check(self, cycle: Cycle) -> None:
        try:
            session = await self._thread(self._reload, cycle.session.id)
        except NotFound:
            self._lose(cycle, "deleted")
            return
        if session.state == "paused" and not cycle.ending:
            self._end(cycle, "paused")

    def _reload(self, session_id: int) -> CrawlSession:
        with self._services.database.read() as tx:
            return crawls.get_session(tx, None, session_id)

    # --- leases

    async def _renew(self) -> None:
        for domain in await self._thread(self.holdings.renew):
            for cycle in [cycle for cycle in self.cycles.values() if cycle.session.domain == domain]:
                self._lose(cycle, "lease lost")
        in_use = {self._opening, *(cycle.session.domain for cycle in self.cycles.values())}
        await self._release([domain for domain in self.holdings.domains() if domain not in in_use and not self.dispatcher.in_use(domain)])

    async def _release(self, domains: Iterable[str]) -> None:
        """A lease that cannot be given back runs out."""
        for domain in domains:
            if domain != self._opening:
                try:
                    await self._thread(self.holdings.release, domain)
                except FiligraneError as error:
                    log.warning("crawler.release_failed", domain=domain, code=error.code, details=error.details)

    async def _want(self) -> None:
        """Takes leases on image hosts for which work waits; who finds one taken goes on with the rest and asks again."""
        for domain in [domain for domain in self.dispatcher.wanted if self._is_time(domain)]:
            if not self.dispatcher.in_use(domain):  # the cycle that wanted it is over
                self.dispatcher.wanted.discard(domain)
                continue
            mine = self.holdings.held(domain)
            held = await self._thread(self.holdings.acquire, domain)
            if held is None:
                self._refused(domain)
                continue
            self.dispatcher.wanted.discard(domain)
            self._wait_out(domain, mine, held, self.dispatcher.delay(domain))
            self.dispatcher.wake(domain)
            self.poke()

    def _wait_out(self, domain: str, before: Held | None, held: Held, delay: float) -> None:
        """Another holder may have sent a request a moment ago."""
        if held.epoch > (before.epoch if before else 1):
            self._politeness.taken_over(domain, self._services.clock.monotonic(), delay)

    def _lose(self, cycle: Cycle, reason: str) -> None:
        """Nothing more of this cycle is done here."""
        if self.cycles.get(cycle.session.id) is not cycle:
            return
        del self.cycles[cycle.session.id]
        log.warning("crawler.cycle_lost", session=cycle.session.id, cycle=cycle.key[1], reason=reason)
        cycle.ending = reason
        self._let_go(cycle)
        self.dispatcher.leave(cycle)
        cycle.drop()
        self._journal.cover(*cycle.key)

    # --- answers come

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
        if not self._is_over(cycle, task, self._services.clock.monotonic()):
            return
        refused = isinstance(error, AddressRefused)
        if self._file(cycle, task, partial(cycle.refuse if refused else cycle.failed, task, reason)) and task.kind == "robots":
            # behind a refused address each URL is then refused by itself, and counted
            self._set_robots(task, Robots.allow_all() if refused else Robots.from_answer(None, b""))
        self._after(cycle)

    def _is_over(self, cycle: Cycle, task: Task, answered_at: float) -> bool:
        """The request has ended; False when its cycle is not ours any more."""
        self.dispatcher.ended(cycle, task, answered_at)
        if task.kind == "robots":
            self._rulebook.forget(origin(task.url))
        return self.cycles.get(cycle.session.id) is cycle

    def _file(self, cycle: Cycle, task: Task, call: Callable[[], None], room: int = RECORD_BYTES) -> bool:
        """Journals what `call` does. With a full disk nothing is written: the task waits again, and so does everybody for a while."""
        try:
            self._journal.reserve(room)
            call()
        except Unavailable as error:
            log.error("crawler.disk", code=error.code, details=error.details)
            cycle.put_back(task)
            self.dispatcher.hold(self._services.clock.monotonic() + min(error.retry_after, FULL_FOR))
            return False
        except Exception:
            log.exception("crawler.answer_failed", session=cycle.session.id, url=task.address)
            cycle.failed(task, "internal")
        return True

    def _learn_robots(self, cycle: Cycle, task: Task, exchange: Exchange) -> None:
        target = cycle.robots_redirect(task, exchange)
        if target and task.hops < MAX_HOPS // 2 and registrable_domain(target) == registrable_domain(task.url):
            cycle.frontier.follow(task, target)
            self._rulebook.ask(origin(task.url))  # still: nobody else needs to
        else:
            self._set_robots(task, Robots.from_answer(exchange.status, exchange.decoded))

    def _set_robots(self, task: Task, rules: Robots) -> None:
        self._rulebook.learn(origin(task.url), rules)
        self.dispatcher.wake(registrable_domain(task.url))

    def _after(self, cycle: Cycle) -> None:
        self.dispatcher.join(cycle)
        if cycle.closing_due():
            self._close(cycle)
        self._maybe_end(cycle)

    # --- storing

    def _tick(self) -> None:
        """Group commit of the local files, closings that are due, cycles whose time is over."""
        beat()
        for cycle in list(self.cycles.values()):
            cycle.sync()
            if cycle.closing_due():
                self._close(cycle)
            self._maybe_end(cycle)
        self._journal.sync()
        if self._news.is_set() and not self._looking.locked():
            self._news.clear()
            self._spawn(self._look())

    def _close(self, cycle: Cycle, *, everything: bool = False) -> None:
        closing = cycle.close_segments(everything=everything)
        if closing is not None:
            self._start_storing(cycle, closing)

    def _start_storing(self, cycle: Cycle, closing: Closing) -> None:
        cycle.unstored += 1
        self._spawn(self._store(cycle, closing))

    async def _store(self, cycle: Cycle, closing: Closing) -> None:
        """Store, then send. Closings of a cycle keep their order."""
        async with cycle.storing:
            rows = await self._until_done(cycle, "store", publish.store, self._services, cycle.held, cycle.session, closing)
            cycle.unstored -= 1
            if rows is None:
                return
            closings_total.labels("stored").inc()
            cycle.stored(rows)
            self._journal.cover(*cycle.key, closing.piece.first + len(closing.piece.records) - 1)
            for segment in closing.segments:
                segment.path.unlink(missing_ok=True)
            await self._thread(send, self._services, cycle.session, closing, dict(cycle.progress.tar_keys))
        for domain in cycle.frontier.domains():
            self.dispatcher.wake(domain)
        self.poke()

    async def _until_done(self, cycle: Cycle, what: str, call: Callable[..., T], *args: object) -> T | None:
        """Again and again while the store or the database is away or full; None when the cycle is lost."""
        try:
            return await again_and_again(cycle, what, partial(self._thread, call, *args))
        except (StaleLease, NotFound) as error:
            self._lose(cycle, error.details)
            return None

    # --- cycles end

    def _let_go(self, cycle: Cycle) -> None:
        """A robots.txt that moved and that the cycle does not follow any more is for others to ask for."""
        for task in cycle.frontier.unfinished():
            if task.kind == "robots":
                self._rulebook.forget(origin(task.url))
                self.dispatcher.wake(registrable_domain(task.address))

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
        self._let_go(cycle)
        while not cycle.lost and await self._skip_rest(cycle):
            await asyncio.sleep(0)
        self._close(cycle, everything=True)
        while cycle.unstored and not cycle.lost:
            await asyncio.sleep(TICK)
        async with cycle.storing:
            args = (self._services, cycle.held, cycle.session, cycle.frontier, self._folder)
            state = await self._until_done(cycle, "finish", artifacts.finish, *args)
        if state is None or self.cycles.get(cycle.session.id) is not cycle:
            return
        del self.cycles[cycle.session.id]
        self.dispatcher.leave(cycle)
        self._journal.cover(*cycle.key)
        pages, images = cycle.frontier.counts()
        log.info("crawler.cycle_done", session=cycle.session.id, cycle=cycle.key[1], state=state, pages=pages, images=images)

    async def _skip_rest(self, cycle: Cycle) -> bool:
        """Some of what still waits; whether there is more."""
        try:
            return cycle.skip_rest(cycle.ending, SKIPS_AT_ONCE)
        except Unavailable as error:
            log.error("crawler.disk", code=error.code, details=error.details)
            await asyncio.sleep(min(error.retry_after, FULL_FOR))
            return True

    async def _drain(self) -> None:
        """Lets what is in flight arrive and stores it; the sessions stay running for whoever comes next."""
        self._draining = True
        until = self._services.clock.monotonic() + DRAIN
        running = [cycle for cycle in self.cycles.values() if not cycle.ending]
        for cycle in running:
            cycle.ending = "stopped"
        while any(cycle.in_flight for cycle in running) and self._services.clock.monotonic() < until:
            await asyncio.sleep(TICK)
        for cycle in running:
            if not cycle.lost:
                self._close(cycle, everything=True)
        while self._tasks and self._services.clock.monotonic() < until:
            await asyncio.wait(self._tasks, timeout=0.5)
        for task in self._tasks:
            task.cancel()


def run(services: Services, stop: threading.Event, *, name: str = "local", only_session: int | None = None) -> None:
    """A crawler process, until `stop` is set. `name` is its local folder and its leases' holder: one process at a time.

    `only_session`: it crawls this one and leaves the others waiting.

    Raises Conflict when another process has the name.
    """
    folder = services.settings.data / "crawler" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict(f"a crawler named {name!r} already runs on {folder}", code="crawler_running") from error
        asyncio.run(_start(services, folder, name, stop, only_session))


async def _start(services: Services, folder: Path, name: str, stop: threading.Event, only_session: int | None) -> None:
    # made inside of the loop: its locks and events belong to it
    await Worker(services, folder, name, stop, only_session).run()
