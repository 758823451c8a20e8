"""What goes wrong around a crawl: full disks, lost leases, corrupt objects, two looks at once. Nothing is lost, nobody else waits."""

from __future__ import annotations

import asyncio
import io
import math
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from core.leases import Held
from core.models import CrawlSession, Lease
from core.segments.warc import records
from core.services import Services
from core.settings import Settings
from crawler import place
from crawler.frontier import Frontier
from crawler.holdings import Holdings
from crawler.journal import Entry, Journal, Skip
from crawler.politeness import Politeness
from crawler.queue import Dispatcher
from crawler.recover import recover
from crawler.robots import Robots
from crawler.rulebook import Rulebook
from crawler.worker import AT_A_LOOK, Worker
from tests.crawler.crawling import add_session, artifact, batches, crawl, pictures, rows, running, session_of, wait_for, wait_until
from tests.crawler.test_kill import assert_whole, site_of_noise, start_worker
from tests.crawler.test_worker import page, picture
from tests.site import Reply, Route, Site


def skip(number: int, epoch: int, url: str = "u") -> Entry:
    return Entry(1, 1, epoch, number, Skip(f"{url}{number}", "", "time"))


# --- the local journal


def test_numbers_that_begin_anew_replace_what_was_given_up(tmp_path: Path) -> None:
    """A lease that was lost and won again: the records of before, and the segments that they point to, are gone."""
    first = Journal(tmp_path)
    for number in range(5):
        first.append(skip(number, 1, "old"))
    for number in range(2, 4):
        first.append(skip(number, 2, "new"))
    first.close()
    second = Journal(tmp_path)
    second.close()
    assert [entry.record.url for entry in second.left[1, 1]] == ["old0", "old1", "new2", "new3"]


def test_a_closed_journal_takes_no_more_room_than_its_records(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(skip(0, 1))
    journal.close()
    assert [path.stat().st_size < 200 for path in tmp_path.iterdir()] == [True]
    Journal(tmp_path).close()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_journal_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal, "FILE_BYTES", 100)
    journal = Journal(tmp_path)
    for number in range(20):
        journal.reserve()
        journal.append(skip(number, 1))
    journal.cover(1, 1, 12)
    journal.close()
    assert {path.suffix for path in tmp_path.iterdir()}.isdisjoint({".1", ".2"})
    second = Journal(tmp_path)
    second.close()
    assert [entry.number for entry in second.left[1, 1]][-7:] == list(range(13, 20))


def test_nothing_local_stays_behind_a_cycle_that_is_over(services: Services) -> None:
    with Site({"/": page(images=("/1.jpg",)), "/1.jpg": picture()}) as site:
        session = crawl(services, f"{site.url}/")
    folder = services.settings.data / "crawler" / "local"
    assert {path.name for path in folder.iterdir()} == {"lock", "holder"}
    # a worker that was killed between the batch and the tidying up
    journal = Journal(folder)
    journal.append(Entry(session.id, 1, 1, 0, Skip("u", "", "time")))
    journal.close()
    (folder / f"{session.id}-1-000000.warc").write_bytes(b"x")
    (folder / f"{session.id}-1-pages.log").write_bytes(b"x")
    with running(services):
        wait_until(lambda: not list(folder.glob("*-*")))
    assert {path.name for path in folder.iterdir()} == {"lock", "holder"}


def test_recovery_may_be_killed_and_finds_the_same_again(services: Services) -> None:
    """Until the closing is stored the local journal and segments are as they were."""
    folder = services.settings.data / "crawler" / "local"
    with Site(site_of_noise()) as site:
        session = add_session(services, f"{site.url}/")
        process = start_worker(services, segment_seconds="60")
        wait_until(lambda: len(site.asked) >= 60)
        process.kill()
        process.wait()
        session = session_of(services, session.id)
        held = Holdings(services, (folder / "holder").read_text()).acquire(session.domain)
        assert held is not None
        found = []
        for _ in range(2):
            journal = Journal(folder)
            _, progress, closing = recover(services, held, session, journal.left[session.id, 1], folder)
            journal.close()
            assert closing is not None
            assert len(closing.piece.records) > 30
            found.append((progress, closing))
        assert found[0] == found[1]
        with running(services):
            wait_for(services, session)
        asked = Counter(site.paths())
    assert_whole(services, site, session.id)
    assert sum(count - 1 for count in asked.values()) <= 8


# --- leases


def test_a_lease_that_ran_out_and_that_nobody_took_keeps_its_epoch(services: Services) -> None:
    """A worker that slept: what it crawled under the lease still counts."""
    holdings = Holdings(services, "local")
    held = holdings.acquire("a.example")
    assert held is not None
    with services.database.write() as tx:
        tx.get_one(Lease, "a.example").expires = services.clock.now()
    again = holdings.acquire("a.example")
    assert again is not None
    assert again.epoch == held.epoch
    with services.database.write() as tx:
        lease = tx.get_one(Lease, "a.example")
        lease.holder, lease.epoch, lease.expires = "other", held.epoch + 1, services.clock.now()
    third = holdings.acquire("a.example")
    assert third is not None
    assert third.epoch == held.epoch + 2


def test_no_request_goes_out_before_it_is_known_how_long_to_wait(services: Services) -> None:
    """A lease is taken in a thread; the loop learns later what the last holder's delay was."""
    holdings = Holdings(services, "local")
    assert holdings.acquire("a.example", delay=1.0)
    assert not holdings.may("a.example", 1.0)
    holdings.begin("a.example")
    assert holdings.may("a.example", 1.0)
    assert not holdings.may("a.example", 1.5), "the row would tell the next holder too little"
    assert holdings.acquire("a.example", delay=1.5)
    assert holdings.may("a.example", 1.5)
    holdings.give_way("a.example")
    assert not holdings.may("a.example", 1.0)
    assert holdings.lasts("a.example")
    holdings.release("a.example")
    assert not holdings.lasts("a.example")


# --- the worker's loop


@pytest.fixture
def worker(services: Services) -> Iterator[Worker]:
    with place.taken(services.settings.data, "unit") as own:
        made = Worker(services, own, threading.Event(), None)
        yield made
        made._running.journal.close()


def together(*coroutines: Coroutine[Any, Any, None]) -> None:
    async def run() -> None:
        await asyncio.gather(*coroutines)

    asyncio.run(run())


def test_two_looks_at_once_begin_a_session_once(services: Services, worker: Worker) -> None:
    session = add_session(services, "http://127.0.0.1:9/")
    together(worker._look(), worker._look(), worker._look())
    assert list(worker._running.cycles) == [session.id]
    assert [len(list(turns)) for turns in worker._running.dispatcher._turns.values()] == [1]


def test_two_workers_share_what_came_at_once(services: Services, worker: Worker) -> None:
    """Each look begins a few, whoever looks first."""
    sessions = {add_session(services, f"http://127.0.0.1:{port}/").id for port in range(1, 2 * AT_A_LOOK + 3)}
    with place.taken(services.settings.data, "other") as own:
        other = Worker(services, own, threading.Event(), None)
        together(worker._look())
        assert worker._again_at < math.inf, "there may be more"
        together(other._look())
        shares = [set(each._running.cycles) for each in (worker, other)]
        assert [len(share) for share in shares] == [AT_A_LOOK, AT_A_LOOK]
        together(worker._look(), other._look())
        shares = [set(each._running.cycles) for each in (worker, other)]
        together(worker._look())
        assert worker._again_at == math.inf, "nothing is left"
        other._running.journal.close()
    assert shares[0] | shares[1] == sessions
    assert not shares[0] & shares[1]


def test_a_worker_runs_no_more_sessions_than_it_is_told(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, crawler_sessions=3, allow_networks=(ip_network("127.0.0.0/8"),))
    with Services.open(settings) as services, Site({"/": page()}) as site:
        sessions = [add_session(services, f"{site.url}/") for _ in range(7)]
        with place.taken(tmp_path, "unit") as own:
            worker = Worker(services, own, threading.Event(), None)
            for _ in range(3):
                together(worker._look())
            assert len(worker._running.cycles) == 3
            worker._running.journal.close()
        with running(services, "unit"):
            wait_for(services, *sessions)


def test_who_crawls_one_session_finds_it_among_many(services: Services) -> None:
    sessions = [add_session(services, f"http://127.0.0.1:{port}/") for port in range(1, 4 * AT_A_LOOK)]
    with place.taken(services.settings.data, "unit") as own:
        worker = Worker(services, own, threading.Event(), sessions[-1].id)
        together(worker._look())
        assert list(worker._running.cycles) == [sessions[-1].id]
        worker._running.journal.close()


def test_a_lease_that_is_lost_while_a_session_is_opened_begins_nothing(
    services: Services, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = add_session(services, "http://127.0.0.1:9/")
    opened = worker._open_cycle

    def slowly(held: Held, session_id: int) -> Any:
        found = opened(held, session_id)
        with services.database.write() as tx:
            lease = tx.get_one(Lease, session.domain)
            lease.holder, lease.epoch = "other", lease.epoch + 1
        assert worker._running.holdings.renew({session.domain: 1.0}) == [session.domain]
        return found

    monkeypatch.setattr(worker, "_open_cycle", slowly)
    together(worker._look())
    assert not worker._running.cycles


def test_what_an_old_cycle_hears_late_does_not_touch_the_new_one(services: Services, worker: Worker) -> None:
    session = add_session(services, "http://127.0.0.1:9/")
    together(worker._look())
    running = worker._running
    old = running.cycles[session.id]
    running.lose(old, "lease lost")
    together(worker._look())
    new = running.cycles[session.id]
    running.lose(old, "its closing came too late")
    assert running.cycles == {session.id: new}
    assert not new.lost


@pytest.mark.parametrize("lasts", [True, False])
def test_a_domain_that_somebody_else_had_meanwhile_loses_its_cycles(services: Services, worker: Worker, lasts: bool) -> None:
    """Whether they still have it or not: the cycle's epoch is over."""
    session = add_session(services, "http://127.0.0.1:9/")
    together(worker._look())
    cycle = worker._running.cycles[session.id]
    with services.database.write() as tx:
        lease = tx.get_one(Lease, session.domain)
        lease.holder, lease.epoch = "other", lease.epoch + 1
        if not lasts:
            lease.expires = services.clock.now()
    worker._running.dispatcher.wanted.add(session.domain)
    together(worker._leasing.want())
    assert cycle.lost
    assert not worker._running.cycles
    assert (session.domain in worker._running.holdings.domains()) is not lasts


def test_a_host_whose_cycle_is_gone_is_wanted_no_more(services: Services, worker: Worker) -> None:
    worker._running.dispatcher.wanted.add("gone.example")
    together(worker._leasing.want())
    assert not worker._running.dispatcher.wanted
    assert not worker._running.holdings.domains()


def test_a_session_that_cannot_begin_keeps_nobody_waiting(services: Services) -> None:
    with Site({"/": page()}) as site, Site({"/": page()}) as other:
        broken = add_session(services, f"{site.url}/")
        services.store.put("frontiers/broken", b"no snapshot")
        with services.database.write() as tx:
            tx.get_one(CrawlSession, broken.id).snapshot_key = "frontiers/broken"
        missing = add_session(services, f"{site.url}/")
        with services.database.write() as tx:
            tx.get_one(CrawlSession, missing.id).snapshot_key = "frontiers/missing"
        whole = [add_session(services, f"{url}/") for url in (site.url, other.url)]
        with running(services):
            wait_for(services, *whole)
    assert [session_of(services, session.id).state for session in whole] == ["done", "done"]
    assert session_of(services, broken.id).state == "running"


# --- turns


class Free:
    """All leases are ours."""

    def may(self, domain: str, delay: float) -> bool:
        return True

    def lasts(self, domain: str) -> bool:
        return True


FREE = Free()


class FakeCycle:
    """What the dispatcher sees of a cycle."""

    def __init__(self, session: int, delay: float) -> None:
        self.session = CrawlSession(id=session, download_delay=delay)
        self.frontier = Frontier()
        self.frontier.seed([f"http://a.example/{session}/{number}" for number in range(3)])
        self.agent = "filigrane"
        self.ending, self.unstored, self.in_flight = "", 0, 0

    def next(self, domain: str, rulebook: Rulebook) -> Any:
        return self.frontier.take(domain)


def test_a_patient_session_does_not_hold_up_a_quick_one() -> None:
    now = [0.0]
    dispatcher = Dispatcher(Politeness(), Rulebook(lambda: now[0]), FREE, lambda: now[0])
    slow: Any = FakeCycle(1, 100.0)
    dispatcher.join(slow)
    first = dispatcher.next()
    assert first is not None
    dispatcher.ended(*first, 0.0)
    assert dispatcher.next() is None
    quick: Any = FakeCycle(2, 1.0)
    dispatcher.join(quick)
    now[0] = 101.0  # what the slow one's request left behind
    asked: list[int] = []
    for _ in range(5):
        picked = dispatcher.next()
        if picked:
            asked.append(picked[0].session.id)
            dispatcher.ended(*picked, now[0])
        now[0] += 1.0
    assert asked.count(2) >= 3
    for cycle in (slow, quick):
        dispatcher.leave(cycle)
    assert not dispatcher._turns


# --- robots.txt, budgets


def test_a_robots_txt_that_moved_is_followed_before_the_images_that_wait_for_it(services: Services) -> None:
    robots: dict[str, Route] = {
        "/robots.txt": Reply(b"", 301, headers={"Location": "/rules.txt"}),
        "/rules.txt": Reply(b"User-agent: *\nDisallow: /no/\n", content_type="text/plain"),
        "/1.jpg": picture(),
        "/no/2.jpg": picture(20),
    }
    with Site(robots) as images:
        with Site({"/": page(images=(f"{images.url}/1.jpg", f"{images.url}/no/2.jpg"))}) as site:
            session = crawl(services, f"{site.url}/", crawl_delay=15.0)
        asked = Counter(one.path for one in images.asked)
    assert asked == {"/robots.txt": 1, "/rules.txt": 1, "/1.jpg": 1}
    (batch,) = batches(services, session)
    assert [row["reason"] for row in rows(services, batch, "skipped.log")] == ["robots"]
    assert len(pictures(services, batch)) == 1


def test_pages_that_robots_forbids_cost_nothing_of_the_budget(services: Services) -> None:
    routes: dict[str, Route] = {
        "/robots.txt": Reply(b"User-agent: *\nDisallow: /no/\n", content_type="text/plain"),
        "/": page("/no/1", "/no/2", "/no/3", "/a", "/b"),
        "/a": page(),
        "/b": page(),
    }
    with Site(routes) as site:
        session = crawl(services, f"{site.url}/", max_pages=3)
        assert sorted(site.paths()) == ["/", "/a", "/b"]
    (batch,) = batches(services, session)
    assert Counter(row["reason"] for row in rows(services, batch, "skipped.log")) == {"robots": 3}


def test_a_crawl_delay_for_the_sessions_own_agent_counts(services: Services) -> None:
    routes: dict[str, Route] = {
        "/robots.txt": Reply(b"User-agent: mine\nCrawl-delay: 0.3\n\nUser-agent: *\nAllow: /\n", content_type="text/plain"),
        "/": page("/a", "/b"),
        "/a": page(),
        "/b": page(),
    }
    with Site(routes) as site:
        crawl(services, f"{site.url}/", user_agent="mine/1.0")
        times = [one.at for one in site.asked]
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.295


def test_a_crawl_delay_slows_only_those_whom_it_is_asked_of() -> None:
    rulebook = Rulebook(lambda: 0.0)
    rulebook.learn("http://a.example", Robots.parse(b"User-agent: slow\nCrawl-delay: 100\n\nUser-agent: *\nCrawl-delay: 2\n"))
    rulebook.learn("http://www.a.example", Robots.parse(b"User-agent: *\nCrawl-delay: 3\n"))
    dispatcher = Dispatcher(Politeness(), rulebook, FREE, lambda: 0.0)
    assert dispatcher.delay("a.example") == 0.0
    plain: Any = FakeCycle(1, 1.0)
    dispatcher.join(plain)
    assert dispatcher.delay("a.example") == 3.0
    slow: Any = FakeCycle(2, 1.0)
    slow.agent = "slow/1.0"
    dispatcher.join(slow)
    assert dispatcher.delay("a.example") == 100.0
    dispatcher.leave(slow)
    assert dispatcher.delay("a.example") == 3.0


def test_an_unreachable_robots_txt_says_why(services: Services) -> None:
    session = crawl(services, "http://127.0.0.1:9/")
    assert (session.state, session.reason) == (
        "failed",
        "http://127.0.0.1:9/: not requested: robots unreachable, no answer (unreachable)",
    )


# --- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB; needs root and a kernel that lets it mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("A FULL DISK IS NOT TESTED: only root can mount a small one")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass


def test_a_disk_that_is_full_for_a_while_costs_time_and_nothing_else(small_disk: Path) -> None:
    settings = Settings(data=small_disk / "data", allow_networks=(ip_network("127.0.0.0/8"),), segment_seconds=0.3)
    with Services.open(settings) as services, Site(site_of_noise()) as site:
        session = add_session(services, f"{site.url}/", crawl_delay=120.0)
        with running(services):
            wait_until(lambda: len(site.asked) > 40)
            fill(small_disk / "ballast")
            wait_until(lambda: (small_disk / "ballast").stat().st_size > 0)
            seen = len(site.asked)
            threading.Event().wait(3.0)
            assert session_of(services, session.id).state == "running"
            assert len(site.asked) - seen < 100
            (small_disk / "ballast").unlink()
            wait_for(services, session)
        assert_whole(services, site, session.id)


def test_a_worker_starts_on_a_full_disk_and_begins_when_there_is_room(small_disk: Path) -> None:
    settings = Settings(data=small_disk / "data", allow_networks=(ip_network("127.0.0.0/8"),))
    with Services.open(settings) as services, Site({"/": page(images=("/1.jpg",)), "/1.jpg": picture()}) as site:
        session = add_session(services, f"{site.url}/")
        with place.taken(small_disk / "data", None):  # it has been here before
            pass
        fill(small_disk / "ballast")
        with running(services):
            threading.Event().wait(1.5)
            (small_disk / "ballast").unlink()
            wait_for(services, session)
    assert session_of(services, session.id).state == "done"


# --- counts


def test_each_record_of_the_warc_has_its_row_and_each_member_of_the_tar(services: Services) -> None:
    """Truncated, refused, failed and moved pages, and a picture at a page's address."""
    routes: dict[str, Route] = {
        "/": page("/long", "/pdf", "/slow", "/moved", "/photo", "/missing", images=("/1.jpg", "/also-1.jpg", "/moved.jpg", "/no.jpg")),
        "/long": Reply(b"<p>" + b"x" * (9 << 20)),
        "/pdf": Reply(b"%PDF-1.7", content_type="application/pdf"),
        "/slow": Reply(b"late", wait=6.0),
        "/moved": Reply(b"", 301, headers={"Location": "/there"}),
        "/there": page(),
        "/photo": picture(60),
        "/1.jpg": picture(10),
        "/also-1.jpg": picture(10),
        "/moved.jpg": Reply(b"", 302, headers={"Location": "/1.jpg"}),
        "/no.jpg": Reply(b"<html>", content_type="text/html"),
    }
    with Site(routes) as site:
        session = crawl(services, f"{site.url}/", download_timeout=2.5)
        asked = Counter(one.path for one in site.asked)
    (batch,) = batches(services, session)
    logged = rows(services, batch, "pages.log")
    outcomes = Counter(row["outcome"] for row in logged)
    assert set(outcomes) == {"fetched", "truncated", "refused", "failed"}
    assert Counter(row["url"].removeprefix(site.url) for row in logged) == {
        path: count for path, count in asked.items() if not path.endswith(".jpg")
    }
    kinds = Counter(record.fields["warc-type"] for record in records(io.BytesIO(artifact(services, batch, "pages.warc"))))
    assert kinds["response"] == kinds["request"] == outcomes["fetched"] + outcomes["truncated"]
    (warc,) = [found for found in batch.artifacts if found.name == "pages.warc"]
    assert warc.count == kinds["response"]
    images = {row["url"].removeprefix(site.url): row for row in rows(services, batch, "images.log")}
    assert set(images) == {"/1.jpg", "/also-1.jpg", "/moved.jpg", "/no.jpg", "/photo"}
    assert {row["sha256"] for row in images.values() if row["offset"]} == {name[:64] for name in pictures(services, batch)}
    assert (images["/no.jpg"]["outcome"], images["/no.jpg"]["offset"]) == ("refused", "")
