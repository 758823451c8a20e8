"""kill -9 of the worker at seeded moments: nothing is lost, nothing is doubled, at most what was in flight is fetched again."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from PIL import Image as Pillow

from core.events import IMAGES, ImageFound, decode
from core.models import Segment
from core.services import Services
from crawler.politeness import AT_ONCE
from tests.crawler.crawling import add_session, batches, pictures, rows, running, session_of, wait_for, wait_until
from tests.site import Reply, Route, Site

PAGES, IMAGES_PER_PAGE = 40, 3
WORKER = """
import signal, sys, threading
from core.services import Services
from crawler import worker
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
worker.run(Services.open(), stop, name=sys.argv[1])
"""

DYING = """
import itertools, os, signal, sys, threading
from contextlib import contextmanager
from core.database import Database
from core.objectstore.folder import FolderStore
from core.services import Services
from crawler import worker

steps, joined, ending = itertools.count(1), threading.Event(), sys.argv[3] == "ending"

def step():
    if (joined.is_set() or not ending) and next(steps) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

def dying(call):
    def wrapped(*arguments, **named):
        if call is join:
            joined.set()
        step()
        return call(*arguments, **named)
    return wrapped

@contextmanager
def write(self, real=Database.write):
    with real(self) as tx:
        yield tx
        step()  # done, not committed

join = FolderStore.join
FolderStore.put, FolderStore.join, Database.write = dying(FolderStore.put), dying(join), write
worker.run(Services.open(), threading.Event(), name=sys.argv[1])
"""
"""Is killed just before its nth durable step (an object, a join or a commit), counted from its start ("crawling"), or from the end of the
cycle on ("ending"): how many come before that is a matter of speed."""


def noise(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def site_of_noise(pages: int = PAGES) -> dict[str, Route]:
    """Pages in a tree; each shows three pictures of its own and one that all share."""
    routes: dict[str, Route] = {"/shared.jpg": Reply(noise(10**6), content_type="image/jpeg", wait=0.005)}
    for number in range(pages):
        names = [f"/{number}-{image}.jpg" for image in range(IMAGES_PER_PAGE)]
        links = "".join(f'<a href="/{child}">on</a>' for child in range(3 * number + 1, min(3 * number + 4, pages)))
        shown = "".join(f'<img src="{name}">' for name in [*names, "/shared.jpg"])
        routes[f"/{number or ''}"] = Reply(f"<!doctype html>{shown}{links}".encode(), wait=0.005)
        for image, name in enumerate(names):
            routes[name] = Reply(noise(number * 10 + image), content_type="image/jpeg", wait=0.005)
    return routes


def start_worker(
    services: Services, name: str = "local", segment_seconds: str = "0.3", *, dies_at: tuple[int, str] | None = None
) -> subprocess.Popen[bytes]:
    environment = dict(
        os.environ,
        FILIGRANE_DATA=str(services.settings.data),
        FILIGRANE_ALLOW_NETWORKS="127.0.0.0/8",
        FILIGRANE_SEGMENT_SECONDS=segment_seconds,
    )
    program = [WORKER, name] if dies_at is None else [DYING, name, str(dies_at[0]), dies_at[1]]
    return subprocess.Popen([sys.executable, "-c", *program], env=environment)


def crawl_with_kills(services: Services, site: Site, moments: list[int], *, names: list[str], segment_seconds: str) -> int:
    """Runs workers one after the other, each killed after so many more requests; the last one finishes. Returns the session's id."""
    session = add_session(services, f"{site.url}/")
    for moment, name in zip(moments, names, strict=False):
        process = start_worker(services, name, segment_seconds)
        target = len(site.asked) + moment
        wait_until(lambda target=target: len(site.asked) >= target)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start_worker(services, names[len(moments)], segment_seconds)
    wait_for(services, session)
    process.terminate()
    assert process.wait(30) == 0
    return session.id


def assert_whole(services: Services, site: Site, session_id: int, pages: int = PAGES) -> None:
    """Every page and picture of the site has its one row, member and message."""
    session = session_of(services, session_id)
    assert (session.state, session.cycle_count) == ("done", 1)
    (batch,) = batches(services, session)
    logged = Counter(row["url"].removeprefix(site.url) for row in rows(services, batch, "pages.log"))
    expected = {path for path, reply in site.routes.items() if isinstance(reply, Reply) and reply.content_type.startswith("text/html")}
    assert logged.keys() - {"/robots.txt"} == expected
    assert all(count == 1 for path, count in logged.items() if path != "/robots.txt")
    images = Counter(
        (row["url"].removeprefix(site.url), row["page_url"].removeprefix(site.url)) for row in rows(services, batch, "images.log")
    )
    shown = {(f"/{n}-{i}.jpg", f"/{n or ''}") for n in range(pages) for i in range(IMAGES_PER_PAGE)}
    shown |= {("/shared.jpg", f"/{n or ''}") for n in range(pages)}
    assert images == Counter(shown)
    kept = pictures(services, batch)
    assert len(kept) == pages * IMAGES_PER_PAGE + 1
    assert all(name == f"{hashlib.sha256(data).hexdigest()}.jpg" for name, data in kept.items())
    assert sightings_published(services) == shown_on(site, shown)


def shown_on(site: Site, shown: set[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(site.url + image, site.url + page) for image, page in shown}


def sightings_published(services: Services) -> set[tuple[str, str]]:
    consumer = services.bus.consume(IMAGES, "test")
    found: set[tuple[str, str]] = set()
    until = time.monotonic() + 10
    while time.monotonic() < until and (services.bus.lag(IMAGES, "test") or not found):
        messages = consumer.poll(0.5, 1000)
        for message in messages:
            event = decode(message.value)
            assert isinstance(event, ImageFound)
            found |= {(event.url, sighting.page_url) for sighting in event.sightings}
        consumer.commit(messages)
    consumer.close()
    return found


@pytest.mark.parametrize(("seed", "seconds"), [(1, "0.3"), (2, "1.5")])
def test_three_kills_on_one_disk(services: Services, seed: int, seconds: str) -> None:
    """With short segments, and with ones that outlast a process: pages that are journalled and stored before their WARC segment is."""
    moments = [random.Random(seed).randint(3, 45) for _ in range(3)]
    with Site(site_of_noise()) as site:
        session_id = crawl_with_kills(services, site, moments, names=["local"] * 4, segment_seconds=seconds)
        asked = Counter(path for path in site.paths())
    heal(services)
    assert_whole(services, site, session_id)
    assert sum(count - 1 for count in asked.values()) <= len(moments) * AT_ONCE


class Reader:
    """Reads every artifact that is there under its final key, again and again: each is whole whenever it is seen."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.read = 0
        self.torn: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for found in self._services.store.list("batches/"):
                self._look(found.key)

    def _look(self, key: str) -> None:
        data = self._services.store.get(key)
        self.read += 1
        try:
            if key.endswith(".gz"):
                gzip.decompress(data)
            else:
                with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
                    tar.getmembers()
                assert data.endswith(bytes(1024))
        except Exception as error:
            self.torn.append(f"{key}: {error!r}")


@pytest.mark.parametrize(
    "steps",
    [[(5, "crawling"), (6, "crawling"), (2, "ending"), (4, "ending")], [(4, "crawling"), (8, "crawling"), (8, "ending")]],
)
def test_kills_between_objects_and_rows_and_at_the_end_of_the_cycle(services: Services, steps: list[tuple[int, str]]) -> None:
    """Whatever a worker was about to make durable, the next one makes it, once; nobody ever reads a torn artifact."""
    with Site(site_of_noise()) as site, Reader(services) as reader:
        session = add_session(services, f"{site.url}/")
        for step in steps:
            assert start_worker(services, segment_seconds="10", dies_at=step).wait(60) == -signal.SIGKILL
        with running(services):
            wait_for(services, session)
        asked = Counter(site.paths())
        wait_until(lambda: reader.read > 0)
    assert reader.torn == []
    heal(services)
    assert_whole(services, site, session.id)
    assert sum(count - 1 for count in asked.values()) <= len(steps) * AT_ONCE
    assert {path.name for path in (services.settings.data / "crawler" / "local").iterdir()} == {"lock", "holder"}


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1000, 1040))
def test_a_hundred_kills_on_one_disk(services: Services, seed: int, record_property: Callable[[str, object], None]) -> None:
    """G01: kill -9 of a crawler, three times in each crawl, 120 in all; each time the crawl goes on within half a minute."""
    chance = random.Random(seed)
    moments = [chance.randint(3, 45) for _ in range(3)]
    with Site(site_of_noise()) as site:
        began = time.monotonic()
        session_id = crawl_with_kills(services, site, moments, names=["local"] * 4, segment_seconds=chance.choice(["0.3", "1.5", "10"]))
        asked = Counter(site.paths())
        gaps = [later.at - earlier.at for earlier, later in pairwise(site.asked)]
    heal(services)
    assert_whole(services, site, session_id)
    again = sum(count - 1 for count in asked.values())
    record_property("acknowledged", len(asked))
    record_property("refetched", again)
    record_property("recovery seconds", round(max(gaps), 1))
    assert again <= len(moments) * AT_ONCE
    assert max(gaps) < 30.0
    assert time.monotonic() - began < 120.0


@pytest.mark.long
@pytest.mark.parametrize("step", range(1, 41))
def test_a_kill_before_each_durable_step(services: Services, step: int, record_property: Callable[[str, object], None]) -> None:
    """G01, C08: kill -9 of a crawler before each of its durable steps; nobody ever reads a torn artifact."""
    with Site(site_of_noise(8)) as site, Reader(services) as reader:
        session = add_session(services, f"{site.url}/")
        process = start_worker(services, segment_seconds="1", dies_at=(step, "crawling"))
        wait_until(lambda: process.poll() is not None or session_of(services, session.id).state == "done")  # a late step may never come
        process.kill()
        process.wait()
        with running(services):
            wait_for(services, session)
        record_property("refetched", sum(count - 1 for count in Counter(site.paths()).values()))
    assert reader.torn == []
    heal(services)
    assert_whole(services, site, session.id, 8)


def test_another_machine_goes_on_from_what_is_stored(services: Services) -> None:
    """The first worker's disk is lost: its lease runs out, the next worker has another folder."""
    with Site(site_of_noise()) as site:
        session = add_session(services, f"{site.url}/")
        process = start_worker(services, "lost")
        wait_until(lambda: len(site.asked) >= 60)
        process.kill()
        process.wait()
        expire_leases(services)
        with running(services, "other"):
            wait_for(services, session)
    heal(services)
    assert_whole(services, site, session.id)


def expire_leases(services: Services) -> None:
    from core.models import Lease

    with services.database.write() as tx:
        for lease in tx.query(Lease):
            lease.expires = services.clock.now()


def heal(services: Services) -> None:
    """What the scheduler does with pieces that were stored and not sent."""
    from crawler.publish import messages_of_pieces

    with services.database.read() as tx:
        unsent = list(tx.query(Segment).filter(Segment.kind == "journal", Segment.sent.is_(None)))
    for row in unsent:
        for _, messages in messages_of_pieces(services, row.session_id, row.cycle, {row.seq}):
            services.bus.publish(messages)


def test_sigterm_drains_and_the_next_worker_refetches_nothing(services: Services, tmp_path: Path) -> None:
    with Site(site_of_noise()) as site:
        session = add_session(services, f"{site.url}/")
        process = start_worker(services)
        wait_until(lambda: len(site.asked) >= 50)
        process.terminate()
        assert process.wait(30) == 0
        process = start_worker(services)
        wait_for(services, session)
        process.terminate()
        assert process.wait(30) == 0
        asked = Counter(site.paths())
    assert_whole(services, site, session.id)
    assert set(asked.values()) == {1}
