"""The clock and its jobs: what is due happens once, what is over goes, what is needed stays; cut anywhere, run twice."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from core.bus import Message, Outgoing
from core.clock import ManualClock
from core.errors import Unavailable
from core.events import IMAGES, SESSIONS, ImageFound, decode
from core.models import Account, CrawlSession, Static
from core.repo import crawls, media, pictures
from core.services import Services
from core.settings import Settings
from crawler.journal import Image, Piece, Pointer, encode_piece
from scheduler import clock, heal, jobs, sweep
from scheduler.jobs import Job
from tests.core.crawled import add_account, add_session, begin, finish, hold, reload, store

DAY = 86400.0


@pytest.fixture
def manual() -> ManualClock:
    """Real objects have real dates, so it starts at the real time."""
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def services(tmp_path: Path, manual: ManualClock) -> Iterator[Services]:
    with Services.open(Settings(data=tmp_path / "data", allow_networks=(ip_network("127.0.0.0/8"),)), clock=manual) as opened:
        yield opened


def keys(services: Services, prefix: str = "") -> list[str]:
    return [info.key for info in services.store.list(prefix)]


def followed(services: Services, topic: str) -> list[Message]:
    follower = services.bus.follow(topic, "earliest")
    try:
        return follower.poll(0)
    finally:
        follower.close()


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


def crawled(services: Services, **options: Any) -> CrawlSession:
    """A session after one cycle with two TAR segments and a journal piece."""
    now = services.clock.now()
    session = add_session(services, add_account(services), now=now, **options)
    held = hold(services, now=now)
    running = begin(services, held, session.id, now)
    store(services, held, running, [("tar", 0), ("tar", 1), ("journal", 0)], now)
    with services.database.write() as tx:
        crawls.mark_sent(tx, session.id, 1, 0, now)
    finish(services, held, running, now, offsets={("tar", 0): 0, ("tar", 1): 5})
    return reload(services, session.id)


def test_a_due_session_is_pending_and_told_of(services: Services, manual: ManualClock) -> None:
    session = crawled(services, interval=60.0)
    list(jobs.drain_outbox(services))
    told = len(followed(services, SESSIONS))
    assert list(jobs.wake_due(services)) == [0]
    manual.advance(60)
    assert list(jobs.wake_due(services)) == [1]
    assert list(jobs.wake_due(services)) == [0]
    assert reload(services, session.id).state == "pending"
    assert len(followed(services, SESSIONS)) == told + 1


def unsent_piece(services: Services, piece: bytes) -> CrawlSession:
    """A running session whose worker died between the commit of a piece and its messages."""
    now = services.clock.now()
    session = add_session(services, add_account(services), now=now)
    held = hold(services, now=now)
    running = begin(services, held, session.id, now)
    rows = store(services, held, running, [("tar", 0), ("journal", 0)], now)
    services.store.put(rows[1].key, piece)
    return running


def found() -> bytes:
    image = Image(
        "http://a.example/1.jpg",
        "http://a.example/",
        "fetched",
        0.0,
        0.0,
        status=200,
        content_type="image/jpeg",
        width=4,
        height=3,
        bytes=5,
        md5="d" * 32,
        sha256="e" * 64,
        tar=Pointer(0, 0, 5),
    )
    return encode_piece(Piece(0, (image,)))


def test_heal_publishes_what_a_dead_worker_left(services: Services, manual: ManualClock) -> None:
    session = unsent_piece(services, found())
    assert list(heal.resend(services)) == []  # its worker may still do it
    manual.advance(31)
    assert list(heal.resend(services)) == [1]
    assert list(heal.resend(services)) == []
    (message,) = followed(services, IMAGES)
    event = decode(message.value)
    assert isinstance(event, ImageFound)
    assert (event.session, event.sha256, event.bytes.key) == (session.id, "e" * 64, f"crawl/{session.id}/1/1/000000.tar")
    assert [sighting.page_url for sighting in event.sightings] == ["http://a.example/"]


def test_a_piece_that_cannot_be_read_holds_up_no_other(services: Services, manual: ManualClock) -> None:
    broken = unsent_piece(services, b"no piece")
    held = hold(services, now=manual.now())
    good = begin(services, held, add_session(services, broken.account_id, now=manual.now()).id, manual.now())
    rows = store(services, held, good, [("tar", 0), ("journal", 0)], manual.now())
    services.store.put(rows[1].key, found())
    manual.advance(31)
    assert list(heal.resend(services)) == [1]
    assert len(followed(services, IMAGES)) == 1
    with services.database.read() as tx:
        assert [row.session_id for row in crawls.unsent(tx, manual.now(), 10)] == [broken.id]


def test_nothing_that_is_needed_is_ever_swept(services: Services, manual: ManualClock) -> None:
    session = crawled(services)
    draft = pictures.PictureDraft("f" * 64, 4, 3, None, "pictures/1/f", "pictures/1/p", "pictures/1/t", 10, "k", "registrations/1.lmk")
    for key in (draft.fingerprint_key, draft.preview_key, draft.thumbnail_key, "registrations/1.lmk"):
        services.store.put(key, b"bytes")
    with services.database.write() as tx:
        home = tx.get_one(Account, session.account_id).home
        media.put_picture(tx, session.account_id, f"{home}/a.jpg", draft, manual.now())
    before = keys(services)
    sweep_all(services)
    assert keys(services) == before
    manual.advance(2 * DAY)
    sweep_all(services)
    gone = [key for key in before if key.startswith("crawl/")]
    pieces = [key for key in gone if key.endswith(".journal")]
    assert keys(services) == sorted({*before} - {*gone} | {*pieces})  # the others' bytes are in the batch's artifacts
    with services.database.read() as tx:
        assert crawls.resolve_segment(tx, session.id, 1, 1) == (f"batches/{session.id}/1/1/images.tar", 5)
    manual.advance(sweep.JOURNALS.total_seconds())
    sweep_all(services)
    assert keys(services) == sorted({*before} - {*gone})


def sweep_all(services: Services) -> None:
    for job in (sweep.segments, sweep.statics, sweep.deleted_sessions, sweep.orphans, sweep.bus):
        list(job(services))


def test_what_a_dead_writer_left_in_the_store_goes_after_a_day(services: Services, manual: ManualClock) -> None:
    left = services.settings.data / "objects/incoming/half"
    left.write_bytes(b"half of someth")
    os.utime(left, (manual.now().timestamp(),) * 2)
    assert list(sweep.store(services)) == [0]
    manual.advance(DAY + 60)
    assert list(sweep.store(services)) == [1]
    assert not left.exists()


def test_objects_without_a_row_go_after_a_day(services: Services, manual: ManualClock) -> None:
    orphans = ["crawl/9/1/1/0.tar", "batches/9/1/1/a", "frontiers/9/1-1", "pictures/9/x/f", "registrations/9/x.lmk", "queries/9"]
    for key in [*orphans, "elsewhere/9"]:
        services.store.put(key, b"bytes")
    list(sweep.orphans(services))
    assert len(keys(services)) == 7
    manual.advance(DAY + 60)
    assert sum(sweep.orphans(services)) == 6
    assert keys(services) == ["elsewhere/9"]


def test_a_deleted_session_leaves_nothing_but_its_row(services: Services, manual: ManualClock) -> None:
    session = crawled(services)
    with services.database.write() as tx:
        crawls.delete_session(tx, session.account_id, session.id, manual.now())
    list(sweep.statics(services))  # the addresses of artifacts go with them
    next(sweep.deleted_sessions(services))  # cut in the middle
    list(sweep.deleted_sessions(services))
    assert list(sweep.deleted_sessions(services)) == []
    assert keys(services) == []
    with services.database.read() as tx:
        assert crawls.segments_of(tx, session.id, 1) == []
        assert tx.query(Static).count() == 0
        assert tx.get_one(CrawlSession, session.id).deleted


def test_expired_addresses_go_with_their_objects(services: Services, manual: ManualClock) -> None:
    services.store.put("pictures/1/x", b"bytes")
    with services.database.write() as tx:
        expires = manual.now() + timedelta(seconds=10)
        tx.add(Static(key="pictures/1/x", content_type="image/jpeg", filename="x", created=manual.now(), expires=expires))
    assert list(sweep.statics(services)) == []
    manual.advance(10)
    assert list(sweep.statics(services)) == [1]
    assert keys(services) == []


def test_the_bus_keeps_what_a_group_still_wants(services: Services, manual: ManualClock) -> None:
    services.bus.publish([Outgoing(IMAGES, str(number), b"x") for number in range(3)])
    consumer = services.bus.consume(IMAGES, "matchers")
    while not (messages := consumer.poll(0.1, 1)):
        pass
    consumer.commit(messages)
    manual.advance(8 * DAY)
    assert sum(sweep.bus(services)) == 1
    assert services.bus.lag(IMAGES, "matchers") == 2
    consumer.close()


def test_the_clock_lives_on_whatever_a_job_does(services: Services) -> None:
    stop, runs = threading.Event(), {"broken": 0, "away": 0, "good": 0}

    def broken(_: Services) -> Iterator[int]:
        runs["broken"] += 1
        yield 0
        raise KeyError("a bug")

    def away(_: Services) -> Iterator[int]:
        runs["away"] += 1
        yield 1
        raise Unavailable("away")

    def good(_: Services) -> Iterator[int]:
        runs["good"] += 1
        yield 1

    table = [Job("broken", 0.02, broken), Job("away", 0.02, away), Job("good", 0.02, good)]
    thread = threading.Thread(target=clock.run, args=(services, stop, table))
    thread.start()
    wait_until(lambda: min(runs.values()) >= 3)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_job_never_overlaps_itself_and_stops_between_its_pieces(services: Services) -> None:
    stop, at_once, most, pieces = threading.Event(), 0, 0, 0

    def endless(_: Services) -> Iterator[int]:
        nonlocal at_once, most, pieces
        at_once += 1
        most = max(most, at_once)
        try:
            while True:
                pieces += 1
                time.sleep(0.005)
                yield 1
        finally:
            at_once -= 1

    thread = threading.Thread(target=clock.run, args=(services, stop, [Job("endless", 0.01, endless)]))
    thread.start()
    wait_until(lambda: pieces > 20)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    assert (most, at_once) == (1, 0)


def test_two_schedulers_do_nothing_twice(services: Services, manual: ManualClock) -> None:
    session = crawled(services, interval=60.0)
    piece = unsent_piece_of(services, session)
    manual.advance(sweep.JOURNALS.total_seconds() + 3600)
    stop = threading.Event()
    fast = [replace_seconds(job) for job in jobs.JOBS if job.name != "bus"]  # by this clock, what is sent now is too old at once
    threads = [threading.Thread(target=clock.run, args=(services, stop, fast)) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: reload(services, session.id).state == "pending" and not keys(services, "crawl/1/1/"))
    wait_until(lambda: not unsent(services))
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert reload(services, session.id).cycle_count == 1
    assert keys(services, f"batches/{session.id}/") == [f"batches/{session.id}/1/1/images.tar"]
    assert {message.key for message in followed(services, IMAGES)} == {"e" * 64}
    assert keys(services, piece) == [piece]


def unsent(services: Services) -> int:
    with services.database.read() as tx:
        return len(crawls.unsent(tx, services.clock.now(), 10))


def replace_seconds(job: Job) -> Job:
    return job._replace(seconds=0.02)


def unsent_piece_of(services: Services, session: CrawlSession) -> str:
    """Another session of the account, with an unsent piece; the key of the piece."""
    held = hold(services, now=services.clock.now())
    running = begin(services, held, add_session(services, session.account_id, now=services.clock.now()).id, services.clock.now())
    rows = store(services, held, running, [("tar", 0), ("journal", 0)], services.clock.now())
    services.store.put(rows[1].key, found())
    return rows[1].key
