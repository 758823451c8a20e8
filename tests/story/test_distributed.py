"""The story over the real servers, in many processes, with kill -9 of one process of each kind and of each server.

API, two crawlers, two matchers and two schedulers; three sessions at once, two of them on one domain, and pictures on a host that all of
them share. Whoever was killed comes back as an orchestrator would have it: the same command on the same folder.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from core.errors import Unavailable
from core.events import IMAGES
from core.repo import crawls
from core.services import Services
from core.shards import GROUP
from filigrane.demo.site import Served, build, serve, watermark
from tests.story.cluster import ROLES, Deployment, deployment
from tests.story.test_serve_under_kills import add_sessions, all_done, assert_counts, assert_every_copy_once, copies, register_all

pytestmark = [
    pytest.mark.story,
    pytest.mark.timeout(600),
    # kafka-python leaves the sockets of failed attempts to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]
DELAY = 0.4
PATIENCE = 400.0
SERVERS = ("kafka", "s3", "postgres")


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployment]:
    with deployment(tmp_path, segment_seconds="1") as made:
        yield made


def until(condition: Callable[[], bool], patience: float = PATIENCE) -> float:
    """Waits; a server that is away is no answer. How long it took, in seconds."""
    started = time.monotonic()
    while True:
        try:
            if condition():
                return time.monotonic() - started
        except Unavailable:
            pass
        assert time.monotonic() - started < patience, "it did not happen in time"
        time.sleep(0.2)


def story(deployed: Deployment, served: Served, seed: int, record: Callable[[str, object], None]) -> None:
    """Everything up, three sessions, the kills; then what must hold."""
    moments = random.Random(seed)
    with Services.open(deployed.settings) as services:
        account_id = register_all(services, served)
        for role in ROLES[1:] * 2:
            deployed.start(role)
        deployed.start_api()
        news, shop, _ = served.plan.sites
        sessions = add_sessions(services, account_id, served, [news, shop, shop], DELAY)
        memory = Memory(deployed)
        amid = 0
        for victim in moments.sample(ROLES + SERVERS, len(ROLES + SERVERS)):
            target = len(served.requests) + moments.randint(3, 15)
            until(lambda target=target: len(served.requests) >= target or all_done(services, sessions))  # type: ignore[misc]
            amid += not all_done(services, sessions)
            kill(deployed, victim, moments)
        crawling = until(lambda: all_done(services, sessions))
        healing = until(lambda: all_sent(services) and services.bus.lag(IMAGES, GROUP) == 0)
        memory.close()
        found, wanted = copies(services, served, account_id, [news, shop])
        record("acknowledged", wanted.total())
        record("lost", (wanted - found).total())
        record("doubled", (found - wanted).total())
        assert_every_copy_once(services, served, account_id, [news, shop])
        assert_counts(services, sessions)
        assert smallest_gap(served) >= DELAY - 0.005
    assert amid >= len(ROLES), "most kills come in the middle of the crawl"
    # the other site has two sessions, and the shared host serves all: there one address is rightly asked for more than once
    refetched = sum(count - 1 for count in Counter(r.path for r in served.requests if r.host == news).values())
    record("refetched of one session's site", refetched)
    record("crawled after the last kill, seconds", round(crawling, 1))
    record("healed after that, seconds", round(healing, 1))
    for role, size in memory.peak.items():
        record(f"{role} megabytes", size >> 20)
    for machine in deployed.machines.values():
        until(lambda machine=machine: machine.listens)  # type: ignore[misc]
        assert machine.stop() == 0, machine.log()[-2000:]


def kill(deployed: Deployment, victim: str, moments: random.Random) -> None:
    """kill -9, a moment of absence, and back."""
    if victim in SERVERS:
        server = deployed.servers[victim]
        server.kill()
        time.sleep(moments.uniform(0.1, 3))
        server.launch()
    else:
        machine = moments.choice(deployed.of(victim))
        machine.kill()
        time.sleep(moments.uniform(0, 1))
        machine.start()


def all_sent(services: Services) -> bool:
    with services.database.read() as tx:
        return not crawls.unsent(tx, services.clock.now(), 1)


def smallest_gap(served: Served) -> float:
    """Between two requests to one host, whoever sent them."""
    times: dict[str, list[float]] = defaultdict(list)
    for request in served.requests:
        times[request.host].append(request.at)
    return min(later - earlier for each in times.values() for earlier, later in pairwise(sorted(each)))


class Memory:
    """The most that a process of each role took, looked at now and then."""

    def __init__(self, deployed: Deployment) -> None:
        self.peak: dict[str, int] = dict.fromkeys(ROLES, 0)
        self._deployed = deployed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            for machine in list(self._deployed.machines.values()):
                self.peak[machine.role] = max(self.peak[machine.role], machine.resident)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def test_a_kill_of_everything_once(deployed: Deployment, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    with serve(build(tmp_path / "web", mark=watermark)) as served:
        story(deployed, served, 20261125, record_property)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_stories_with_kills(deployed: Deployment, tmp_path: Path, seed: int, record_property: Callable[[str, object], None]) -> None:
    """Story over Kafka, S3 and PostgreSQL: kill -9 of each kind of process and of each server, three sessions at once."""
    with serve(build(tmp_path / "web", mark=watermark)) as served:
        story(deployed, served, seed, record_property)
