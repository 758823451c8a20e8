"""A part is away for a while: the crawl goes on or waits, nothing is lost, nobody has to help, and the end is never held up."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.models import Segment
from core.repo import crawls
from core.services import Services
from crawler.politeness import AT_ONCE
from tests.crawler.crawling import add_session, batches, rows, session_of, wait_for, wait_until
from tests.crawler.test_kill import assert_whole, heal, site_of_noise
from tests.crawler.test_spread import DELAY, QUICK, SMALL, assert_polite, epoch_of, start, workers
from tests.site import Reply, Site


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else can write to the SQLite file."""
    connection = sqlite3.connect(path, timeout=20, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.rollback()
        connection.close()


@contextlib.contextmanager
def no_folder(path: Path) -> Iterator[None]:
    """Something else is in the place of the folder."""
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    path.touch()
    try:
        yield
    finally:
        path.unlink()
        aside.rename(path)


def away(services: Services, part: str) -> contextlib.AbstractContextManager[None]:
    data = services.settings.data
    if part == "store":
        return no_folder(data / "objects")
    return locked(data / ("bus.sqlite" if part == "bus" else "filigrane.sqlite"))


def unsent(services: Services) -> int:
    with services.database.read() as tx:
        return tx.query(Segment).filter(Segment.kind == "journal", Segment.sent.is_(None)).count()


def test_without_the_bus_the_crawl_goes_on_to_its_end(services: Services) -> None:
    """What could not be sent is left to heal; closings do not wait for the bus one after the other."""
    with Site(site_of_noise(SMALL)) as site:
        session = add_session(services, f"{site.url}/", download_delay=DELAY)
        with workers(start(services)):
            wait_until(lambda: len(site.asked) > 10)
            with away(services, "bus"):
                wait_for(services, session)
                assert unsent(services) > 2
    heal(services)
    assert_whole(services, site, session.id, SMALL)


def test_without_the_store_the_crawl_waits_and_goes_on(services: Services) -> None:
    with Site(site_of_noise(SMALL)) as site:
        session = add_session(services, f"{site.url}/", download_delay=DELAY)
        with workers(start(services)):
            wait_until(lambda: len(site.asked) > 10)
            with away(services, "store"):
                wait_until(lambda: is_still(site))
                assert session_of(services, session.id).state == "running"
            wait_for(services, session)
    assert_polite(site.asked)
    assert set(Counter(site.paths()).values()) == {1}
    heal(services)
    assert_whole(services, site, session.id, SMALL)


def is_still(site: Site) -> bool:
    """No request for two seconds: a quarter of those that were to come."""
    return time.monotonic() - site.asked[-1].at > 2.0


def test_without_the_database_the_crawl_stops_before_its_lease_ends_and_goes_on(services: Services) -> None:
    """The lease runs out, and nobody else takes it: what was crawled under it counts."""
    with Site(site_of_noise(SMALL)) as site:
        session = add_session(services, f"{site.url}/", download_delay=DELAY)
        with workers(start(services)):
            wait_until(lambda: len(site.asked) > 10)
            with away(services, "database"):
                since = time.monotonic()
                wait_until(lambda: is_still(site) and time.monotonic() - since > 4.0)
                assert all(one.at < since + 3.0 for one in site.asked)
            wait_for(services, session)
        assert epoch_of(services, site.url) == 1
    assert_polite(site.asked)
    assert set(Counter(site.paths()).values()) == {1}
    heal(services)
    assert_whole(services, site, session.id, SMALL)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", ["bus", "store", "database"])
def test_two_minutes_without_it(services: Services, part: str, record_property: Callable[[str, object], None]) -> None:
    """G10, G14: two minutes without one part, with leases as they are: a holder that cannot renew stops, and goes on when it can."""
    with Site(site_of_noise()) as site:
        session = add_session(services, f"{site.url}/", download_delay=1.0, crawl_delay=600.0)
        with workers(start(services, times={})):
            wait_until(lambda: len(site.asked) > 5)
            before = len(site.asked)
            with away(services, part):
                threading.Event().wait(120.0)
                asked = len(site.asked) - before
            assert asked > 100 if part == "bus" else asked < 40, asked
            wait_until(lambda: len(site.asked) > before + asked + 5)
            assert (session_of(services, session.id).state, epoch_of(services, site.url)) == ("running", 1)
            with services.database.write() as tx:
                crawls.pause_session(tx, session.account_id, session.id, services.clock.now())
            wait_until(lambda: bool(batches(services, session)))
        assert_polite(site.asked, 1.0)
        asked_for = Counter(site.paths())
    record_property("acknowledged", len(asked_for))
    record_property("refetched", sum(count - 1 for count in asked_for.values()))
    assert set(asked_for.values()) == {1}
    (batch,) = batches(services, session)
    logged = {row["url"] for row in rows(services, batch, "pages.log")} | {row["url"] for row in rows(services, batch, "images.log")}
    assert {f"{site.url}{path}" for path in asked_for} <= logged


LATER = pytest.mark.long
ENDS = [("database", 3.0), *(pytest.param(part, drain, marks=LATER) for part in ("bus", "store", "database") for drain in (3.0, 18.0))]


@pytest.mark.parametrize(("part", "drain"), ENDS)
def test_the_end_is_not_held_up_by_what_is_away(
    services: Services, part: str, drain: float, record_property: Callable[[str, object], None]
) -> None:
    """G09: a crawler that is told to end while a part is away ends in time, and the next one goes on."""
    with Site(site_of_noise(SMALL)) as site:
        session = add_session(services, f"{site.url}/", download_delay=DELAY)
        process = start(services, times={**QUICK, "DRAIN": drain})
        wait_until(lambda: len(site.asked) > 10)
        with away(services, part):
            process.send_signal(signal.SIGTERM)
            assert process.wait(drain + 12) == 0
        with workers(start(services)):
            wait_for(services, session)
    assert_polite(site.asked)
    again = sum(count - 1 for count in Counter(site.paths()).values())
    record_property("refetched", again)
    assert again <= AT_ONCE
    heal(services)
    assert_whole(services, site, session.id, SMALL)


def test_the_end_is_not_held_up_by_a_site_that_does_not_answer(services: Services) -> None:
    with Site({"/": Reply(b"late", wait=100.0)}) as site:
        add_session(services, f"{site.url}/", download_timeout=200.0, robots=False)
        process = start(services, times={"DRAIN": 3.0})
        wait_until(lambda: len(site.asked) == 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
