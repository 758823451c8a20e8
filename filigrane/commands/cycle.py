"""One cycle of a session, followed to its batch. Where nobody else runs the roles, they run as our children until it is done.

In the distributed form they run somewhere, and a matcher of ours would only disturb the group: the command follows.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.status import Status
from sqlalchemy.orm import Session

from api_shim import present, schemas
from core import outbox
from core.errors import Conflict, Unavailable
from core.models import Batch, CrawlSession
from core.repo import crawls, matches
from core.services import Services
from core.shards import lags
from crawler.journal import Image, Page, decode_piece
from filigrane.commands import Caller, say
from filigrane.serve import CRAWLER, AlreadyRunning, Running, lock, running_on
from filigrane.supervisor import Child, Supervisor, environment
from scheduler import crawled

_TICK: Final = 0.1
_DEATHS: Final = 4
"""In a row, before a role is given up."""
_UNTOUCHED: Final = 15.0
"""Seconds after which it is said that nobody crawls. A crawler that is free takes a session within one or two."""


def run_cycle(caller: Caller, session_id: int) -> tuple[schemas.Batch, str | None]:
    """Lets the session's next cycle begin (or goes on with the one that runs) and waits for its batch; with search, for its matches too.

    Returns:
        The batch, and why the cycle failed (None when it did not).

    Raises:
        Conflict: the session was paused.
        NotFound: no such session, or it was deleted meanwhile.
        Unavailable: a role dies again and again.
    """
    before = _begin(caller, session_id)
    with ExitStack() as stack:
        workers = Others(caller.services, session_id) if caller.services.settings.distributed else _Own(caller.services, session_id, stack)
        progress = _Progress(caller.services, session_id, before, stack)
        while (batch := _batch(caller, session_id, before)) is None:
            workers.watch()
            progress.look()
            time.sleep(_TICK)
        while workers.matching():
            workers.watch()
            time.sleep(_TICK)
        workers.tidy()
    with caller.services.database.read() as tx:
        _tell_matches(tx, caller, session_id)
        return present.batches(tx, [batch], caller.links)[0], crawls.get_session(tx, caller.account.id, session_id).reason


def _tell_matches(tx: Session, caller: Caller, session_id: int) -> None:
    count = matches.of_session(tx, caller.account.id, session_id)
    if count:
        when = "so far; they" if caller.services.settings.distributed else "; while `filigrane serve` runs they"
        say(f"filigrane: {count} matches of this session{when} are at {caller.links.api('/matches/web/')}")


def _begin(caller: Caller, session_id: int) -> int:
    """The last cycle that already has its batch."""
    with caller.services.database.write() as tx:
        session = crawls.get_session(tx, caller.account.id, session_id)
        running = session.state == "running"
        if not running:
            crawls.run_session(tx, caller.account.id, session_id, caller.services.clock.now())
        before = session.cycle_count - running
    outbox.drain(caller.services)
    return before


def _batch(caller: Caller, session_id: int, before: int) -> Batch | None:
    """The batch of the cycle after `before`, once it is there."""
    with caller.services.database.read() as tx:
        session = crawls.get_session(tx, caller.account.id, session_id)
        found = crawls.batches_of(caller.account.id, session_id).where(Batch.crawl_cycle > before).order_by(Batch.crawl_cycle).limit(1)
        batch = tx.scalar(found)
    if batch is None and session.state == "paused":
        raise Conflict(f"session {session_id} was paused", code="session_paused")
    return batch


class Others:
    """The roles of the distributed form: somebody runs them, and is missed when nobody begins."""

    def __init__(self, services: Services, session_id: int) -> None:
        self._services = services
        self._session_id = session_id
        self._until: float | None = services.clock.monotonic() + _UNTOUCHED

    def watch(self) -> None:
        if self._until is None or self._services.clock.monotonic() < self._until:
            return
        self._until = None
        with self._services.database.read() as tx:
            waits = crawls.get_session(tx, None, self._session_id).state == "pending"
        if waits:
            say("filigrane: no crawler has begun yet; does a `filigrane crawler` run? `filigrane doctor` looks at everything")

    def matching(self) -> bool:
        """The matchers go on by themselves."""
        return False

    def tidy(self) -> None:
        """The schedulers do."""


class _Own:
    """The roles that run as our children, as soon as nobody else runs any on this data."""

    def __init__(self, services: Services, session_id: int, stack: ExitStack) -> None:
        self._services = services
        self._stack = stack
        with services.database.read() as tx:
            self._session = crawls.get_session(tx, None, session_id)
        self._supervisor: Supervisor | None = None
        self._said = False

    def watch(self) -> None:
        if self._supervisor is None:
            self._take_over()
            return
        self._supervisor.watch()
        for child in self._supervisor.children:
            if child.deaths >= _DEATHS:
                raise Unavailable(f"the {child.role} dies again and again; see {self._log}", code="role_dies")

    def matching(self) -> bool:
        """Whether our matcher has still to look at pictures. A running `serve` matches on by itself."""
        if self._supervisor is None or not self._session.search:
            return False
        return any(lags(self._services.bus, self._services.settings.registry_shards).values())

    def tidy(self) -> None:
        """What a scheduler would do with the files of crawled pictures, which would become many."""
        if self._supervisor is not None and self._session.search:
            for job in (crawled.merge, crawled.remove):
                for _ in job(self._services):
                    pass

    @property
    def _log(self) -> Path:
        return self._services.settings.data / "run" / "command.log"

    def _take_over(self) -> None:
        data = self._services.settings.data
        if (other := running_on(data)) is not None:
            self._tell(other)
            return
        try:
            self._stack.enter_context(lock(data, Running(os.getpid(), "filigrane crawl")))
        except AlreadyRunning:
            return
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the children are ended in order
        children = [Child("crawler", ("--name", CRAWLER, "--only-session", str(self._session.id)), once=True)]
        if self._session.search:
            children.append(Child("matcher"))
        (data / "run").mkdir(exist_ok=True)
        log = self._stack.enter_context(self._log.open("wb"))
        self._supervisor = self._stack.enter_context(Supervisor(environment(self._services.settings), data / "run", children, log))

    def _tell(self, other: Running) -> None:
        if not self._said:
            say(f"filigrane: `{other.command}` (pid {other.pid}) does the work; following it")
            self._said = True


class _Progress:
    """Pages and pictures so far, as the stored pieces of the cycle's journal tell."""

    def __init__(self, services: Services, session_id: int, before: int, stack: ExitStack) -> None:
        self._services = services
        self._session_id = session_id
        self._before = before
        self._seen: set[int] = set()
        self._pages = self._pictures = 0
        console = Console(stderr=True)
        self._status: Status | None = stack.enter_context(console.status("waiting for the crawler")) if console.is_terminal else None

    def look(self) -> None:
        with self._services.database.read() as tx:
            session: CrawlSession = crawls.get_session(tx, None, self._session_id)
            rows = crawls.segments_of(tx, session.id, self._before + 1, "journal")
        news = [row for row in rows if row.id not in self._seen]
        for row in news:
            self._seen.add(row.id)
            for record in decode_piece(self._services.store.get(row.key)).records:
                self._pages += isinstance(record, Page) and not record.robots
                self._pictures += isinstance(record, Image)
        if news:
            self._show(f"{session.start_urls[0]}: {self._pages} pages, {self._pictures} pictures")

    def _show(self, line: str) -> None:
        if self._status is not None:
            self._status.update(line)
        else:
            say(line)
