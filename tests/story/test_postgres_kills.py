"""kill -9 of PostgreSQL under write load: what was acknowledged is there, and the API says 503 meanwhile and comes back by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx2
import pytest
from sqlalchemy import select

from core.clock import SystemClock
from core.database import Database
from core.models import CrawlSession
from core.repo import accounts
from tests.conftest import needed
from tests.servers import free_port
from tests.servers.postgres import Postgres, get

SECRET = "only for this test"
WRITERS = 3
PATIENCE = 60.0
pytestmark = pytest.mark.story


@dataclass
class World:
    """A server of its own, an API process over it, and what the API has acknowledged."""

    server: Postgres
    database: Database
    url: str
    token: str
    acknowledged: set[int] = field(default_factory=set)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    needed("postgres", get)
    folder, port = tmp_path_factory.mktemp("kills"), free_port()
    with Postgres() as server, server.cluster.database() as database_url:
        database = Database(database_url)
        database.migrate()
        token = database.transact(lambda tx: accounts.create(tx, SECRET.encode(), "jo", now=SystemClock().now()))[1]
        with _api(folder, port, database_url) as url:
            yield World(server, database, url, token)
        database.close()


@contextmanager
def _api(folder: Path, port: int, database_url: str) -> Iterator[str]:
    """The API's process; its URL."""
    names = {"DATA": folder / "data", "DATABASE_URL": database_url, "SECRET_KEY": SECRET}
    environment = {**os.environ, **{f"FILIGRANE_{name}": str(value) for name, value in names.items()}}
    command = [sys.executable, "-m", "filigrane.cli", "api", "--port", str(port)]
    log, url = folder / "log", f"http://127.0.0.1:{port}"
    with log.open("wb") as stream, subprocess.Popen(command, env=environment, stderr=stream, stdout=stream) as process:
        try:
            until = time.monotonic() + PATIENCE
            while not _is_healthy(url):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until
                time.sleep(0.05)
            yield url
        finally:
            process.kill()


def _is_healthy(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/healthz", timeout=PATIENCE).status_code == 200
    except httpx2.TransportError:
        return False


class Writers:
    """Threads that make sessions over the API. Every answer is either 201, or 503 that says when to come again."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write) for _ in range(WRITERS)]
        self.made: list[float] = []
        """When the answers of 201 came, by the monotonic clock."""
        self.refused: list[float] = []
        self.wrong: list[str] = []

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self) -> None:
        with httpx2.Client(base_url=self._world.url, headers={"Authorization": f"Token {self._world.token}"}, timeout=PATIENCE) as client:
            while not self._stop.is_set():
                answer = client.post("/api/v1/crawling/sessions/", json={"url": "http://a.example/", "state": "paused"})
                if answer.status_code == 201:
                    self._world.acknowledged.add(int(answer.headers["Location"].rstrip("/").rpartition("/")[2]))
                    self.made.append(time.monotonic())
                elif (
                    answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1 and answer.json()["code"].startswith("database_")
                ):
                    self.refused.append(time.monotonic())
                    self._stop.wait(0.02)
                else:
                    self.wrong.append(f"{answer.status_code}: {answer.text}")

    def wait(self, moments: list[float], after: float) -> float:
        """Until something of the kind came after that moment; when."""
        until = time.monotonic() + PATIENCE
        while not moments or moments[-1] <= after:
            assert time.monotonic() < until
            assert not self.wrong
            time.sleep(0.005)
        return next(moment for moment in moments if moment > after)


SEEDS = [*range(2), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 100))]


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_that_was_acknowledged_is_lost(world: World, seed: int, record_property: Callable[[str, object], None]) -> None:
    """G06: kill -9 of PostgreSQL under an API that writes: 503 meanwhile, back by itself, each acknowledged row there."""
    random, before = Random(seed), len(world.acknowledged)
    with Writers(world) as writers:
        writers.wait(writers.made, time.monotonic())
        time.sleep(random.uniform(0, 0.3))  # which moment is hit decides nothing
        world.server.kill()
        writers.wait(writers.refused, time.monotonic())
        back = time.monotonic()
        world.server.launch()
        recovery = writers.wait(writers.made, back) - back
        assert recovery < 10
    assert writers.wrong == []
    with world.database.read() as tx:
        lost = world.acknowledged - set(tx.scalars(select(CrawlSession.id)))
    for name, figure in {
        "acknowledged": len(world.acknowledged) - before,
        "lost": len(lost),
        "recovery seconds": round(recovery, 2),
    }.items():
        record_property(name, figure)
    assert not lost
