"""kill -9 of a scheduler in the middle of its work: the next one finishes it, and nothing that is needed is gone."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

from core.clock import SystemClock
from core.repo import crawls, retention
from core.services import Services
from core.settings import Settings
from scheduler import clock, sweep
from scheduler.jobs import JOBS
from tests.core.crawled import add_account, add_session, begin, finish, hold, store
from tests.processes import start

SESSIONS = 16


class Ahead(SystemClock):
    """Two days later: everything may be swept."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=2)


def _run(data: Path) -> None:
    with Services.open(Settings(data=data), clock=Ahead()) as services:
        clock.run(services, threading.Event(), [job._replace(seconds=0.01) for job in JOBS])


def _keys(services: Services, prefix: str = "") -> list[str]:
    return [info.key for info in services.store.list(prefix)]


def _fill(services: Services) -> list[int]:
    """Sessions after one cycle, every other one deleted; the others' ids."""
    account = add_account(services)
    now = services.clock.now()
    held = hold(services, now=now)
    ids = []
    for _ in range(SESSIONS):
        running = begin(services, held, add_session(services, account, now=now).id, now)
        store(services, held, running, [("tar", 0), ("tar", 1)], now)
        finish(services, held, running, now, offsets={("tar", 0): 0, ("tar", 1): 5})
        ids.append(running.id)
    with services.database.write() as tx:
        for session_id in ids[::2]:
            crawls.delete_session(tx, account, session_id, now)
    return ids[1::2]


def test_a_killed_scheduler_is_finished_by_the_next(tmp_path: Path) -> None:
    with Services.open(Settings(data=tmp_path)) as services:
        kept = _fill(services)
        before = len(_keys(services))
        process = start(_run, tmp_path)
        until = time.monotonic() + 60
        while len(_keys(services)) == before:
            assert process.is_alive()
            assert time.monotonic() < until
            time.sleep(0.002)
        process.kill()
        process.join()
    with Services.open(Settings(data=tmp_path), clock=Ahead()) as services:
        for job in (sweep.segments, sweep.deleted_sessions, sweep.orphans):
            list(job(services))
        assert _keys(services, "crawl/") == []
        assert _keys(services, "batches/") == sorted(f"batches/{session_id}/1/1/images.tar" for session_id in kept)
        assert _keys(services, "frontiers/") == sorted(f"frontiers/{session_id}/1-1" for session_id in kept)
        with services.database.read() as tx:
            assert retention.deleted_sessions(tx, SESSIONS) == []
            for session_id in kept:
                assert crawls.resolve_segment(tx, session_id, 1, 1) == (f"batches/{session_id}/1/1/images.tar", 5)
