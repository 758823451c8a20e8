"""Two schedulers on one PostgreSQL, and kill -9 of them: what is due happens once, what was missed happens after the restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from core.events import IMAGES, MEDIA
from core.models import Batch, CrawlSession, Lease, Outbox, Topic
from core.repo import crawls, healing
from core.services import Services
from core.settings import Settings
from scheduler import clock, heal, jobs
from scheduler.jobs import JOBS, Job
from tests.core.crawled import add_account, add_session, begin, finish, hold
from tests.processes import start

SESSIONS = 20


def open_services(data: Path, url: str) -> Services:
    return Services.open(Settings(data=data, database_url=url, secret_key="only for this test"))


@pytest.fixture
def services(tmp_path: Path, postgres_url: str) -> Iterator[Services]:
    with open_services(tmp_path / "data", postgres_url) as opened:
        yield opened


def fill(services: Services, spread: float) -> list[int]:
    """Sessions after one cycle, which are due within so many seconds from now."""
    account, ids = add_account(services), []
    for number in range(SESSIONS):
        now = services.clock.now()
        session = add_session(services, account, domain=f"{number}.example", now=now, interval=3600.0)
        held = hold(services, f"{number}.example", now=now)
        finish(services, held, begin(services, held, session.id, now), now)
        with services.database.write() as tx:
            due = now + timedelta(seconds=spread * number / SESSIONS)
            tx.execute(update(CrawlSession).where(CrawlSession.id == session.id).values(next_due=due))
        ids.append(session.id)
    list(jobs.drain_outbox(services))
    return ids


def pending(services: Services) -> int:
    with services.database.read() as tx:
        return tx.scalar(select(func.count()).select_from(CrawlSession).where(CrawlSession.state == "pending")) or 0


def wait_for(services: Services, count: int, processes: list[BaseProcess]) -> None:
    until = time.monotonic() + 60
    while pending(services) < count:
        assert time.monotonic() < until
        assert any(process.is_alive() for process in processes)
        time.sleep(0.01)


def test_two_at_once_wake_each_session_once(services: Services) -> None:
    ids = fill(services, 0)
    together = threading.Barrier(4)

    def wake(_: int) -> list[int]:
        together.wait(30)
        return services.database.transact(lambda tx: crawls.due(tx, services.clock.now()))

    with ThreadPoolExecutor(4) as threads:
        woken = [session_id for some in threads.map(wake, range(4)) for session_id in some]
    assert sorted(woken) == ids
    with services.database.read() as tx:
        assert sorted(tx.scalars(select(Outbox.subject_id))) == ids  # each is told of once


def test_two_that_see_a_topic_for_the_first_time(services: Services) -> None:
    together = threading.Barrier(4)

    def look(_: int) -> int:
        together.wait(30)
        return sum(heal.topics(services))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(look, range(4))) == [0, 0, 0, 0]
    with services.database.read() as tx:
        assert {row.name: row.identity for row in tx.scalars(select(Topic))} == {
            name: services.bus.identity(name) for name in (IMAGES, MEDIA)
        }


def test_of_two_that_see_a_loss_one_sends_it_again(services: Services) -> None:
    with services.database.write() as tx:
        healing.note_missed(tx, IMAGES, services.clock.now() - heal.SETTLING)
    together = threading.Barrier(4)

    def look(_: int) -> list[int]:
        together.wait(30)
        return list(heal.topics(services))

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(look, range(4))) == [[], [], [], [0]]


def test_what_is_for_one_alone_stays_with_it_until_it_is_gone(services: Services) -> None:
    runs: list[str] = []

    def run(holder: str, *, alone: bool = True) -> None:
        def work(_: Services) -> Iterator[int]:
            runs.append(holder)
            yield 0

        clock.run_job(services, threading.Event(), Job("work", 10, work, alone), holder)

    run("one")
    run("two")
    run("one")
    run("two", alone=False)
    assert runs == ["one", "one", "two"]
    with services.database.write() as tx:  # "one" has not been seen for a minute
        tx.get_one(Lease, "scheduler/work").expires -= timedelta(seconds=61)
    run("two")
    run("one")
    assert runs == ["one", "one", "two", "two"]


def test_who_lost_a_job_in_the_middle_stops(services: Services) -> None:
    pieces = []

    def work(_: Services) -> Iterator[int]:
        for number in range(3):
            pieces.append(number)
            with services.database.write() as tx:
                row = tx.get_one(Lease, "scheduler/work")
                row.holder, row.epoch = "two", row.epoch + 1
            yield 1

    clock.run_job(services, threading.Event(), Job("work", 10, work, True), "one")
    assert pieces == [0]


def _run(data: Path, url: str) -> None:
    with open_services(data, url) as services:
        clock.run(services, threading.Event(), [job._replace(seconds=0.01) for job in JOBS])


@pytest.mark.parametrize("killed_at", [1, *(pytest.param(count, marks=pytest.mark.long) for count in range(2, SESSIONS))])
def test_killed_around_a_due_job_each_crawl_starts_once(
    services: Services, tmp_path: Path, postgres_url: str, killed_at: int, record_property: Callable[[str, object], None]
) -> None:
    """G07: kill -9 of two schedulers around due jobs; each crawl starts once."""
    ids = fill(services, 1.0)
    processes = [start(_run, tmp_path / "data", postgres_url) for _ in range(2)]
    try:
        wait_for(services, killed_at, processes)
        for process in processes:
            process.kill()
            process.join()
        processes.append(start(_run, tmp_path / "data", postgres_url))
        wait_for(services, SESSIONS, processes)
        for number, session_id in enumerate(ids):  # a crawler that hears of it, as often as it is told
            for _ in range(2):
                held, now = hold(services, f"{number}.example", now=services.clock.now()), services.clock.now()
                session = begin(services, held, session_id, now)
                assert session.cycle_count == 2
            finish(services, held, session, now)
        with services.database.read() as tx:
            ran = tx.scalar(select(func.count()).select_from(Batch)) or 0
        record_property("acknowledged", SESSIONS)
        record_property("lost", 2 * SESSIONS - ran)
        assert (ran, pending(services)) == (2 * SESSIONS, 0)
    finally:
        for process in processes:
            process.kill()
            process.join()
