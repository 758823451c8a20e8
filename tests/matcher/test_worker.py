from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
import structlog
from structlog.testing import capture_logs

from core.bus import Message, Outgoing
from core.errors import Unavailable
from core.events import IMAGES, RESULTS, SEARCHES, SearchAnswered, SearchAsked, Sighting, StoredAt, decode, encode
from core.repo import crawls
from core.services import Services
from core.shards import GROUP
from matcher import worker
from matcher.crawled.library import CrawledLibrary
from matcher.decode import Decoders
from matcher.images import Images
from matcher.member import Stopped, patiently
from matcher.pipeline import Pipeline
from matcher.reading import Task, stretches
from matcher.registry import Registry
from matcher.searching import Searches
from matcher.watermark.embed import embed
from tests.matcher.pictures import encoded, mirror, photo, resize
from tests.matcher.world import NOW, World, polled


@pytest.fixture
def world(services: Services) -> World:
    return World(services)


@pytest.fixture
def images(services: Services, decoders: Decoders) -> Iterator[Images]:
    made = Images(services, Pipeline(Registry(services)), decoders, threading.Event())
    yield made
    made.close()


def test_a_poll_becomes_matches_and_a_replay_changes_nothing(world: World, images: Images) -> None:
    marked, registration = embed(photo(1))
    world.register("a.jpg", encoded(photo(1), "PNG"), watermark=registration)
    world.register("b.jpg", encoded(photo(2), "JPEG"))
    datas = [encoded(resize(marked, 0.8), "JPEG"), encoded(mirror(photo(2)), "JPEG"), encoded(photo(3), "JPEG")]
    places = world.store(datas)
    world.publish(*(world.found(d, p, pages=(f"http://site.example/{i}",)) for i, (d, p) in enumerate(zip(datas, places, strict=True))))
    for _ in range(2):
        images.work(polled(world.services, IMAGES))
    found = [(m.page_url, m.key_id, m.watermarked, [n.path for n in m.media]) for m in world.matches()]
    # the marked copy's row without key would link plain media, and there is none
    assert found == [
        ("http://site.example/0", registration.key_id, True, ["anna/a.jpg"]),
        ("http://site.example/1", "", False, ["anna/b.jpg"]),
    ]
    assert polled(world.services, "images.dead") == []


def test_the_same_picture_on_the_same_page_in_the_next_crawl_is_one_match(world: World, images: Images) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    data = encoded(photo(1), "JPEG", quality=50)
    world.publish(world.found(data), world.found(data, cycle=2), world.found(data, cycle=2, pages=("http://site.example/b",)))
    images.work(polled(world.services, IMAGES))
    assert [m.page_url for m in world.matches()] == ["http://site.example/a", "http://site.example/b"]


def test_one_bad_picture_holds_up_no_other(world: World, images: Images) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    good, broken = encoded(photo(1), "JPEG", quality=50), encoded(photo(1), "JPEG")[:2000]
    places = world.store([broken, good, b"<svg/>"])
    gone = StoredAt(99, "crawl/1/1/1/99.tar", 0, 10)
    world.publish(
        world.found(broken, places[0]), world.found(good, places[1]), world.found(b"<svg/>", places[2]), world.found(b"gone", gone)
    )
    world.services.bus.publish([Outgoing(IMAGES, "k", b"no message")])
    images.work(polled(world.services, IMAGES))
    assert len(world.matches()) == 1
    assert sorted(m.headers["code"] for m in polled(world.services, "images.dead")) == [
        "invalid_image",
        "invalid_image",
        "message_invalid",
        "object_missing",
    ]


def test_messages_of_a_deleted_session_are_skipped(world: World, images: Images) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    world.publish(world.found(encoded(photo(1), "JPEG", quality=50)))
    with world.services.database.write() as tx:
        crawls.delete_session(tx, world.account.id, world.session, NOW)
    images.work(polled(world.services, IMAGES))
    assert world.matches() == []
    assert polled(world.services, "images.dead") == []


def test_stretches_are_near_each_other_in_one_segment(world: World) -> None:
    def task(key: str, offset: int, length: int) -> Task:
        event = world.found(b"x", StoredAt(0, key, offset, length))
        return Task(Message(IMAGES, 0, offset, "k", b"", {}), event)

    far = 10 << 20
    tasks = [task("a", far, 100), task("b", 0, 10), task("a", 0, 100), task("a", 612, 50), task("a", 0, 100)]
    got = [[(t.event.bytes.key, t.event.bytes.offset) for t in stretch] for stretch in stretches(tasks)]
    assert got == [[("a", 0), ("a", 0), ("a", 612)], [("a", far)], [("b", 0)]]


def test_a_dependency_that_is_away_is_waited_for() -> None:
    stop, calls = threading.Event(), []

    def work() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise Unavailable("away", retry_after=0)
        return "done"

    assert patiently(work, stop) == "done"
    stop.set()
    with pytest.raises(Stopped):
        patiently(work, stop)


def _ask(world: World, data: bytes, deadline: timedelta, **more: object) -> Message:
    world.services.store.put("queries/s1", data)
    fields = {"search": "s1", "account": world.account.id, "registry_version": world.version(), "key": "queries/s1", "transform": "scale"}
    late = world.services.clock.now() + deadline
    event = SearchAsked(**{**fields, "similar": False, "deadline": late, "reply_to": "p1", "request_id": "r", **more})  # type: ignore[arg-type]
    return Message(SEARCHES, 0, 0, "s1", encode(event), {})


def _answers(world: World) -> list[SearchAnswered]:
    follower = world.services.bus.follow(RESULTS, "earliest")
    events = [decode(m.value) for m in follower.poll(0.1)]
    follower.close()
    return [event for event in events if isinstance(event, SearchAnswered)]


def test_searches_are_answered_refused_or_too_late(world: World, decoders: Decoders) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    searches = Searches(world.services, Pipeline(Registry(world.services)), CrawledLibrary(world.services), decoders, threading.Event())
    data = encoded(photo(1), "JPEG", quality=50)
    for message in (
        _ask(world, data, timedelta(seconds=-1)),
        _ask(world, data, timedelta(hours=1), search="good"),
        _ask(world, data, timedelta(hours=1), search="bent", transform="bend"),
    ):
        searches.answer(message)
    searches.answer(_ask(world, b"no picture", timedelta(hours=1), search="bad"))
    got = {a.search: (len(a.hits), a.error_code) for a in _answers(world)}
    assert got == {"good": (1, None), "bent": (0, "bad_transform"), "bad": (0, "invalid_image")}


def test_the_worker_runs_until_it_is_told_to_stop(world: World) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(world.services, stop))
    thread.start()
    try:
        world.publish(*(world.found(encoded(photo(1), "JPEG", quality=q)) for q in (50, 60)))
        while world.services.bus.lag(IMAGES, GROUP) and thread.is_alive():
            stop.wait(0.05)
    finally:
        stop.set()
        thread.join()
    assert len(world.matches()) == 2
    assert all(m.media[0].path == "anna/a.jpg" for m in world.matches())


def test_sightings_of_one_message_are_all_recorded(world: World, images: Images) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    event = world.found(encoded(photo(1), "JPEG", quality=50), sightings=tuple(Sighting(f"http://site.example/{i}") for i in range(120)))
    world.publish(event)
    images.work(polled(world.services, IMAGES))
    assert len(world.matches()) == 120


def test_every_line_about_a_picture_names_it_and_its_message(world: World, images: Images) -> None:
    """Request id, topic, partition and offset: one picture can be followed through all processes."""
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    datas = [encoded(photo(1), "JPEG", quality=50), b"garbage", b"<svg/>", b"gone"]
    places = [*world.store(datas[:3]), StoredAt(99, "crawl/1/1/1/99.tar", 0, 10)]
    world.publish(*(world.found(d, p, request_id=f"r{n}") for n, (d, p) in enumerate(zip(datas, places, strict=True))))
    messages = {f"r{n}": polled(world.services, IMAGES, hashlib.sha256(data).hexdigest())[0] for n, data in enumerate(datas)}
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        images.work(polled(world.services, IMAGES))
    assert {line["request_id"] for line in lines} == set(messages)
    for line in lines:
        message = messages[line["request_id"]]
        assert (line["topic"], line["partition"], line["offset"]) == (IMAGES, message.partition, message.offset)
        assert line["sha256"] == message.key
    assert {line["event"] for line in lines} == {"matcher.matched", "matcher.image_failed", "matcher.image_dead"}


def test_lines_about_a_search_name_it(world: World, decoders: Decoders) -> None:
    searches = Searches(world.services, Pipeline(Registry(world.services)), CrawledLibrary(world.services), decoders, threading.Event())
    with capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        searches.answer(_ask(world, encoded(photo(1), "JPEG"), timedelta(hours=1), search="s7", request_id="r7"))
        searches.answer(_ask(world, b"", timedelta(seconds=-1), search="s7", request_id="r7"))
    assert [(line["event"], line["search"], line["request_id"], line["topic"], line["offset"]) for line in lines] == [
        ("matcher.search_answered", "s7", "r7", SEARCHES, 0),
        ("matcher.search_late", "s7", "r7", SEARCHES, 0),
    ]
