"""Several workers, as processes: who holds what, who gives way, and that the sites never see requests closer than the delay."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select

from core.models import CrawlSession, Lease, Segment
from core.repo import accounts, crawls
from core.services import Services
from core.settings import Settings
from core.urls import registrable_domain
from crawler import place
from crawler.journal import Image, Page, counted, decode_piece
from crawler.politeness import AT_ONCE
from tests.crawler.crawling import add_session, batches, pictures, rows, running, session_of, wait_for, wait_until
from tests.crawler.test_kill import PAGES, assert_whole, expire_leases, heal, noise, sightings_published, site_of_noise
from tests.crawler.test_worker import page, picture
from tests.site import Asked, Reply, Route, Site

DELAY = 0.03
SMALL = 15
"""Pages of a site: 61 requests."""
Record = Callable[[str, object], None]
SERVERS = ("database_url", "store_url", "s3_endpoint_url", "bus_url", "topic_prefix", "secret_key")
QUICK = {"TTL": 3.0, "SHORT_TTL": 2.0, "TURN": 0.7, "IDLE": 0.3}
"""Leases in a hurry."""
WORKER = """
import json, signal, sys, threading
from core.services import Services
from core.settings import Settings
from crawler import holdings, worker
name, only_session, times = json.loads(sys.argv[1])
for which, seconds in times.items():
    module = worker if which == "DRAIN" else holdings
    assert hasattr(module, which)
    setattr(module, which, seconds)
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
worker.run(Services.open(), stop, name=name, only_session=only_session)
"""


def start(
    services: Services,
    name: str | None = None,
    *,
    session: CrawlSession | None = None,
    times: dict[str, float] = QUICK,
    segment_seconds: float = 0.3,
) -> subprocess.Popen[bytes]:
    settings = services.settings
    environment = dict(
        os.environ,
        FILIGRANE_DATA=str(settings.data),
        FILIGRANE_ALLOW_NETWORKS="127.0.0.0/8",
        FILIGRANE_SEGMENT_SECONDS=str(segment_seconds),
        **{f"FILIGRANE_{each.upper()}": str(getattr(settings, each)) for each in SERVERS if each in settings.model_fields_set},
    )
    told = json.dumps([name, session and session.id, times])
    return subprocess.Popen([sys.executable, "-c", WORKER, told], env=environment)


@contextlib.contextmanager
def workers(*processes: subprocess.Popen[bytes]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Those that are in the list at the end are told to stop, and do; whatever happens, none stays behind."""
    listed = list(processes)
    try:
        yield listed
        for process in listed:
            wait_until(lambda process=process: takes_sigterm(process))  # type: ignore[misc]
            process.terminate()
        assert [process.wait(30) for process in listed] == [0] * len(listed)
    finally:
        for process in listed:
            process.kill()
            process.wait()


def takes_sigterm(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has begun to handle the signal (or is gone): one that was just started would only die of it."""
    if process.poll() is not None:
        return True
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def assert_polite(asked: Sequence[Asked], delay: float = DELAY) -> None:
    gaps = [later.at - earlier.at for earlier, later in pairwise(asked)]
    assert min(gaps) >= delay - 0.005, sorted(gaps)[:5]


def holder_of(services: Services, url: str) -> str | None:
    with services.database.read() as tx:
        lease = tx.get(Lease, registrable_domain(url))
        return lease.holder if lease is not None and lease.expires > services.clock.now() else None


def epoch_of(services: Services, url: str) -> int:
    with services.database.read() as tx:
        lease = tx.get(Lease, registrable_domain(url))
        return lease.epoch if lease else 0


def other_account(services: Services) -> int:
    with services.database.write() as tx:
        return accounts.create(tx, services.settings.secret, "other", now=services.clock.now())[0].id


# --- a place of one's own


def test_crawlers_on_one_machine_take_places_of_their_own(services: Services) -> None:
    data = services.settings.data
    with place.taken(data, None) as first, place.taken(data, None) as second:
        assert [found.folder.name for found in (first, second)] == ["local", "local-2"]
        assert first.holder != second.holder
        with place.taken(data / "elsewhere", None) as far:
            assert far.folder.name == "local"
            assert far.holder not in (first.holder, second.holder)
    with place.taken(data, "local-2") as again, place.taken(data, None) as free:
        assert again == second
        assert free == first


# --- turns


def gallery(images: str, name: str, count: int) -> dict[str, Route]:
    """A page that shows so many pictures of another site."""
    return {"/": page(images=tuple(f"{images}/{name}-{number}.jpg" for number in range(count)))}


def shelf(names: Sequence[str], count: int) -> dict[str, Route]:
    return {f"/{name}-{n}.jpg": Reply(noise(hash_of(name) + n), content_type="image/jpeg") for name in names for n in range(count)}


def hash_of(name: str) -> int:
    return sum(map(ord, name)) * 1000


def test_an_image_host_changes_hands_and_comes_back(services: Services) -> None:
    """One session wants more of it than it can get; another one gets its turn, and then the first one goes on."""
    many, few = 1000, 10
    with (
        Site({**shelf(("one",), many), **shelf(("two",), few)}) as images,
        Site(gallery(images.url, "one", many)) as a,
        Site(gallery(images.url, "two", few)) as b,
    ):
        first = add_session(services, f"{a.url}/", download_delay=DELAY)
        with workers(start(services, session=first)) as processes:
            wait_until(lambda: bool(images.paths()))
            second = add_session(services, f"{b.url}/", download_delay=DELAY)
            processes.append(start(services, session=second))
            wait_for(services, second)
            before = len(images.asked)
            wait_until(lambda: len(images.asked) > before)
            with services.database.write() as tx:
                crawls.pause_session(tx, first.account_id, first.id, services.clock.now())
            wait_until(lambda: bool(batches(services, first)))
        assert_polite(images.asked)
        asked = Counter(images.paths())
        assert set(asked.values()) == {1}
    assert epoch_of(services, images.url) >= 3
    (batch,) = batches(services, second)
    assert len(pictures(services, batch)) == few
    assert rows(services, batch, "skipped.log") == []
    (batch,) = batches(services, first)
    assert len(pictures(services, batch)) == len(asked) - few


def test_a_domain_is_given_back_with_its_session_which_then_goes_on(services: Services) -> None:
    """One worker crawls a site that another one wants pictures of; the other does not run the site's session."""
    few = 10
    with Site(site_of_noise()) as site:
        front = page(images=tuple(f"{site.url}/{n}-0.jpg" for n in range(few)))

        def when_the_crawl_is_under_way() -> Reply:
            wait_until(lambda: len(site.asked) >= 5)
            return front

        with Site({"/": when_the_crawl_is_under_way}) as asking:
            wanting = add_session(services, f"{asking.url}/", download_delay=DELAY, download_timeout=60.0)
            with workers(start(services, "b", session=wanting)) as processes:
                wait_until(lambda: bool(asking.paths()))
                crawled = add_session(services, f"{site.url}/", download_delay=DELAY)
                processes.append(start(services, "a", session=crawled))
                wait_for(services, crawled, wanting)
        assert_polite(site.asked)
        of_crawled = Counter(site.paths())
        of_crawled.subtract(f"/{n}-0.jpg" for n in range(few))
        assert set(of_crawled.values()) == {1}
    (batch,) = batches(services, wanting)
    assert len(pictures(services, batch)) == few
    assert epoch_of(services, site.url) >= 3
    heal(services)
    (batch,) = batches(services, crawled)
    assert {row["url"] for row in rows(services, batch, "pages.log")} >= {f"{site.url}/{n or ''}" for n in range(PAGES)}


def test_a_pending_session_is_run_by_who_has_its_domain(services: Services) -> None:
    """Of whatever account; the other worker does not even ask."""
    with Site(site_of_noise(SMALL)) as site:
        first = add_session(services, f"{site.url}/", download_delay=DELAY)
        with workers(start(services, "a"), start(services, "b")):
            wait_until(lambda: len(site.asked) >= 5)
            owner, epoch = holder_of(services, site.url), epoch_of(services, site.url)
            second = add_session(services, f"{site.url}/1", account_id=other_account(services), download_delay=DELAY)
            wait_until(lambda: session_of(services, second.id).state == "running")
            assert (holder_of(services, site.url), epoch_of(services, site.url)) == (owner, epoch)
            wait_for(services, first, second)
        assert_polite(site.asked)


# --- a host that stays taken


def take_away(services: Services, url: str) -> None:
    """Somebody has the host, and keeps it."""
    with services.database.write() as tx:
        far = services.clock.now().replace(year=2100)
        tx.merge(Lease(domain=registrable_domain(url), holder="somebody", epoch=7, expires=far, delay=0.0))


def test_what_stayed_parked_is_told_and_comes_first_in_the_next_cycle(services: Services) -> None:
    with Site({"/1.jpg": picture(10), "/2.jpg": picture(90)}) as images:
        shown = (f"{images.url}/1.jpg", f"{images.url}/2.jpg")
        with Site({"/": page("/a", images=shown), "/a": page(images=shown[:1])}) as site:
            take_away(services, images.url)
            session = add_session(services, f"{site.url}/", crawl_delay=2.0)
            with running(services):
                wait_for(services, session)
                assert images.asked == []
                (batch,) = batches(services, session)
                assert {(row["url"], row["reason"]) for row in rows(services, batch, "skipped.log")} == {
                    (url, "host_busy") for url in shown
                }
                with services.database.write() as tx:
                    asked = tx.get_one(Lease, registrable_domain(images.url))
                    assert asked.wanted is not None
                    asked.expires = services.clock.now()
                    crawls.run_session(tx, session.account_id, session.id, services.clock.now())
                site.routes |= {"/": page("/a"), "/a": page()}  # they are not shown any more
                wait_until(lambda: len(batches(services, session)) == 2)
            pages = (f"{site.url}/", f"{site.url}/a")
    second = batches(services, session)[1]
    seen = {(row["url"], row["page_url"], row["alt"]) for row in rows(services, second, "images.log")}
    expected = {(shown[0], pages[0]), (shown[0], pages[1]), (shown[1], pages[0])}
    assert seen == {(url, page_url, f"the {url}") for url, page_url in expected}
    assert len(pictures(services, second)) == 2
    assert sightings_published(services) == expected
    heal_all(services)
    assert sightings_published(services) <= expected


def heal_all(services: Services) -> None:
    """As if no piece had been sent."""
    with services.database.write() as tx:
        for row in tx.scalars(select(Segment).where(Segment.kind == "journal")):
            row.sent = None
    heal(services)


# --- politeness over a change of holder


def test_the_next_holder_waits_out_the_delay_that_the_last_one_kept(services: Services) -> None:
    """Which was robots.txt's; the next one has not read it yet, and its session has no delay of its own."""
    routes = site_of_noise(SMALL)
    routes["/robots.txt"] = Reply(b"User-agent: *\nCrawl-delay: 1.0\n", content_type="text/plain")
    with Site(routes) as site:
        session = add_session(services, f"{site.url}/", crawl_delay=8.0)
        process = start(services, "a")
        wait_until(lambda: len(site.asked) >= 2)
        process.kill()
        process.wait()
        expire_leases(services)
        with workers(start(services, "b")):
            wait_until(lambda: len(site.asked) >= 4)
            asked = list(site.asked)
        assert [one.path for one in asked].count("/robots.txt") == 2
        assert_polite(asked, 1.0)
    assert session_of(services, session.id).state == "running"


# --- J01: a holder that was stopped


@pytest.mark.parametrize("at", [7, pytest.param(30, marks=pytest.mark.long), pytest.param(45, marks=pytest.mark.long)])
def test_who_slept_past_its_lease_does_nothing_more_under_it(services: Services, at: int, record_property: Record) -> None:
    """J01: a holder that is stopped past its lease and goes on does nothing more under it."""
    with Site(site_of_noise(SMALL)) as site:
        session = add_session(services, f"{site.url}/", download_delay=DELAY)
        with workers(start(services, "sleeper")) as processes:
            wait_until(lambda: len(site.asked) >= at)
            processes[0].send_signal(signal.SIGSTOP)
            before = rows_of_epoch(services, session, 1)
            asked = len(site.asked)
            processes.append(start(services, "other"))
            wait_until(lambda: len(site.asked) > asked + 3)
            processes[0].send_signal(signal.SIGCONT)
            wait_for(services, session)
            folder = services.settings.data / "crawler" / "sleeper"
            wait_until(lambda: not list(folder.glob("*-*-*")))
        times = [one.at for one in site.asked]
        record_property("refetched", sum(count - 1 for count in Counter(site.paths()).values()))
    assert rows_of_epoch(services, session, 1) == before
    assert rows_of_epoch(services, session, 2)
    heal(services)
    assert_whole(services, site, session.id, SMALL)
    assert_polite(site.asked)
    assert times == sorted(times)


def rows_of_epoch(services: Services, session: CrawlSession, epoch: int) -> set[str]:
    with services.database.read() as tx:
        return set(tx.scalars(select(Segment.key).where(Segment.session_id == session.id, Segment.epoch == epoch)))


# --- J02: a machine and its disk are lost


def test_what_a_stored_segment_holds_is_not_fetched_again(services: Services) -> None:
    with Site(site_of_noise(SMALL)) as site:
        session = add_session(services, f"{site.url}/")
        process = start(services, "lost", times={})
        wait_until(lambda: len(site.asked) >= 30)
        process.kill()
        process.wait()
        stored = stored_urls(services, session)
        before = len(site.asked)
        expire_leases(services)
        with running(services, "other"):
            wait_for(services, session)
        again = Counter(f"{site.url}{one.path}" for one in site.asked[before:] if one.path != "/robots.txt")
    assert stored
    assert not stored & again.keys()
    heal(services)
    assert_whole(services, site, session.id, SMALL)


def stored_urls(services: Services, session: CrawlSession) -> set[str]:
    with services.database.read() as tx:
        segments = crawls.segments_of(tx, session.id, 1)
    there = [(row.kind, row.seq) for row in segments]
    pieces = [decode_piece(services.store.get(row.key)) for row in segments if row.kind == "journal"]
    found = [record for piece in pieces for record in counted(piece.records, there)]
    return {record.url for record in found if isinstance(record, Image) or (isinstance(record, Page) and not record.robots)}


# --- the whole of it: two workers, three sessions, two of them on one domain, images on a shared host, kill -9 of each


def shared_world(images: Site, name: str) -> dict[str, Route]:
    """Pages in a tree; each shows a picture of its own, and some that lie on the shared host."""
    routes: dict[str, Route] = {}
    for number in range(SMALL):
        links = tuple(f"/{child}" for child in range(3 * number + 1, min(3 * number + 4, SMALL)))
        routes[f"/{number or ''}"] = page(*links, images=(f"/{number}.jpg", f"{images.url}/{name}-{number}.jpg", f"{images.url}/all.jpg"))
        routes[f"/{number}.jpg"] = Reply(noise(hash_of(name) + 500 + number), content_type="image/jpeg")
    return routes


def kill_each(services: Services, site: Site, seed: int, kills: int) -> None:
    """Starts two workers and kills them in turns at seeded moments; they are started again at once."""
    chance = random.Random(seed)
    with workers(start(services, "a"), start(services, "b")) as processes:
        for turn in range(kills):
            target = len(site.asked) + chance.randint(3, 12)
            wait_until(lambda target=target: len(site.asked) >= target or not_running(services))  # type: ignore[misc]
            processes[turn % 2].kill()
            processes[turn % 2].wait()
            processes[turn % 2] = start(services, "ab"[turn % 2])
        wait_until(lambda: not_running(services))


def not_running(services: Services) -> bool:
    with services.database.read() as tx:
        return set(tx.scalars(select(CrawlSession.state))) == {"done"}


def spread(services: Services, seed: int, record: Record, kills: int = 4) -> None:
    shelf_routes = {**shelf(("one", "two"), SMALL), "/all.jpg": Reply(noise(999_999), content_type="image/jpeg")}
    with Site(shelf_routes) as images, Site(shared_world(images, "one")) as one, Site(shared_world(images, "two")) as two:
        other = other_account(services)
        sessions = [
            (add_session(services, f"{one.url}/", download_delay=DELAY), one, "one"),
            (add_session(services, f"{one.url}/", account_id=other, download_delay=DELAY), one, "one"),
            (add_session(services, f"{two.url}/", download_delay=DELAY), two, "two"),
        ]
        kill_each(services, one, seed, kills)
        for session, site, name in sessions:
            assert_counts(services, session, site, images, name)
        for site in (images, one, two):
            assert_polite(site.asked)
        # each of four kills costs at most what was in flight, on each of three hosts; with a delay that is one request
        again = sum(count - wanted for site, wanted in ((one, 2), (two, 1)) for count in Counter(site.paths()).values())
        record("refetched", again)
        assert again <= kills * 2 * AT_ONCE
    heal(services)
    wanted = {sighting for _, site, name in sessions for sighting in shown(site, images, name)}
    lost = wanted - sightings_published(services)
    record("acknowledged", len(wanted))
    record("lost", len(lost))
    assert lost == set()


def shown(site: Site, images: Site, name: str) -> set[tuple[str, str]]:
    pages = [(number, f"{site.url}/{number or ''}") for number in range(SMALL)]
    own = {(f"{site.url}/{number}.jpg", url) for number, url in pages}
    far = {(f"{images.url}/{name}-{number}.jpg", url) for number, url in pages}
    return own | far | {(f"{images.url}/all.jpg", url) for _, url in pages}


def assert_counts(services: Services, session: CrawlSession, site: Site, images: Site, name: str) -> None:
    (batch,) = batches(services, session)
    pages = Counter(row["url"] for row in rows(services, batch, "pages.log") if not row["url"].endswith("/robots.txt"))
    assert pages == Counter(f"{site.url}/{number or ''}" for number in range(SMALL))
    seen = Counter((row["url"], row["page_url"]) for row in rows(services, batch, "images.log"))
    assert seen == Counter(shown(site, images, name))
    assert len(pictures(services, batch)) == 2 * SMALL + 1
    assert rows(services, batch, "skipped.log") == []


@pytest.fixture
def servers(tmp_path: Path, postgres_url: str, s3_settings: dict[str, str], kafka_server: str) -> Iterator[Services]:
    """PostgreSQL, S3 and Kafka."""
    settings = Settings(
        data=tmp_path / "data",
        database_url=postgres_url,
        bus_url=f"kafka://{kafka_server}",
        topic_prefix=f"{uuid4().hex}.",
        secret_key="0" * 64,
        allow_networks=(ip_network("127.0.0.0/8"),),
        store_url=s3_settings["store_url"],
        s3_endpoint_url=s3_settings["s3_endpoint_url"],
    )
    with Services.open(settings) as opened:
        yield opened


def test_two_workers_on_servers(servers: Services, record_property: Record) -> None:
    spread(servers, 2, record_property, kills=2)


@pytest.mark.parametrize("seed", [1])
def test_two_workers_three_sessions_and_a_kill_of_each(services: Services, seed: int, record_property: Record) -> None:
    spread(services, seed, record_property, kills=2)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 200))
def test_many_kills_of_two_workers(services: Services, seed: int, record_property: Record) -> None:
    """G01: kill -9 of two crawlers, each twice, over three sessions: the counts of the artifacts hold, nothing is fetched needlessly."""
    spread(services, seed, record_property)
