"""What is registered, divided: each picture is decoded once, and every shard finds its own in it."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from api_shim.answers import Answers
from core.bus import Message
from core.errors import Unavailable
from core.events import (
    FEATURES,
    IMAGES,
    PRIVATE,
    RESULTS,
    SEARCHES,
    WEB,
    FeaturesFound,
    SearchAnswered,
    SearchAsked,
    SearchHit,
    decode,
    encode,
)
from core.models import Account
from core.services import Services
from core.settings import Settings
from core.shards import Shard, lags
from matcher import worker
from matcher.copies.features import Fingerprint
from matcher.crawled.library import CrawledLibrary
from matcher.decode import Decoders
from matcher.images import Images
from matcher.pipeline import Pipeline
from matcher.pixels import U8
from matcher.registry import Registry
from matcher.searching import Searches
from matcher.spreading import Spreading
from matcher.watermark.embed import embed
from tests.matcher.pictures import crop, encoded, mirror, photo
from tests.matcher.test_kill import matched
from tests.matcher.world import World, given, polled
from tests.processes import start

SHARDS = 2
PICTURES = 4
PATIENCE = 120


@pytest.fixture
def world(services: Services) -> World:
    return World(services)


def of_shard(settings: Settings, number: int) -> Settings:
    return settings.model_copy(update={"registry_shards": SHARDS, "registry_shard": number})


@contextmanager
def matchers(services: Services, shards: Sequence[int]) -> Iterator[None]:
    """One for each, until nothing is left to do."""
    stop = threading.Event()
    own = [replace(services, settings=of_shard(services.settings, number)) for number in shards]
    threads = [threading.Thread(target=worker.run, args=(each, stop)) for each in own]
    for thread in threads:
        thread.start()
    try:
        yield
        wait_for_all(services, threads)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def wait_for_all(services: Services, running: Sequence[threading.Thread] = ()) -> None:
    until = time.monotonic() + PATIENCE
    while any(lags(services.bus, SHARDS).values()):
        assert time.monotonic() < until, lags(services.bus, SHARDS)
        assert all(thread.is_alive() for thread in running)
        time.sleep(0.05)


def register(world: World) -> list[int]:
    """Some pictures, of both shards; their media."""
    return [world.register(f"{number}.jpg", encoded(photo(number), "JPEG")).media_id for number in range(PICTURES)]


def crawled(world: World, media: Sequence[int], pages: int = 2) -> Counter[tuple[int, str]]:
    """Copies of all, and strangers; (media id, page) of every match that is to be."""
    copies = [encoded(changed, "JPEG", quality=70) for number in range(PICTURES) for changed in (mirror(photo(number)), _part(number))]
    datas = [*copies, *(encoded(photo(50 + number), "JPEG") for number in range(3))]
    wanted: Counter[tuple[int, str]] = Counter()
    for index, (data, place) in enumerate(zip(datas, world.store(datas), strict=True)):
        seen = [f"http://site.example/{index}/{page}" for page in range(pages)]
        world.publish(*[world.found(data, place, pages=seen)] * 2)
        wanted.update((media[index // 2], page) for page in seen if index < len(copies))
    return wanted


def _part(number: int) -> U8:
    return crop(photo(number), 0.1, 0.1, 0.8)


def searched(services: Services, world: World, number: int, *, similar: bool = False) -> list[SearchHit]:
    data, patience = encoded(photo(number), "JPEG", quality=50), timedelta(seconds=PATIENCE)
    with services.database.read() as tx:
        account = tx.get_one(Account, world.account.id)
    with closing(Answers(services)) as answers:
        return list(answers.search(account, data, transform="scale", similar=similar, category=PRIVATE, patience=patience).hits)


def test_every_copy_is_found_once_and_searches_see_all_shards(world: World) -> None:
    media = register(world)
    wanted = crawled(world, media)
    with matchers(world.services, range(SHARDS)):
        hits = [hit for number in range(PICTURES) for hit in searched(world.services, world, number)]
    assert matched(world) == wanted
    assert len({hit.picture for hit in hits}) == len(hits) == PICTURES
    assert {hit.picture % SHARDS for hit in hits} == set(range(SHARDS))
    for message in polled(world.services, FEATURES):
        event = decode(message.value)
        assert isinstance(event, FeaturesFound)
        assert len(Fingerprint.from_bytes(event.fingerprint).points) > 100
        assert len(message.value) < 200_000
    assert polled(world.services, "features.dead") == polled(world.services, "images.dead") == []


def test_what_is_registered_later_is_found_in_what_was_crawled_before(world: World) -> None:
    world.register("first.jpg", encoded(photo(99), "JPEG"))
    copies = {number: encoded(mirror(photo(number)), "JPEG", quality=70) for number in range(PICTURES)}
    for number, data in copies.items():
        world.publish(world.found(data, pages=(f"http://site.example/{number}",)))
    with matchers(world.services, range(SHARDS)):
        pass
    assert world.matches() == []
    media = register(world)
    with matchers(world.services, range(SHARDS)):
        until = time.monotonic() + PATIENCE
        while len(world.matches()) < PICTURES and time.monotonic() < until:
            time.sleep(0.05)
    assert matched(world) == Counter((media[number], f"http://site.example/{number}") for number in range(PICTURES))


def test_what_looks_alike_is_ranked_over_all_shards(world: World) -> None:
    for number, alike in enumerate((photo(1), _part(1), crop(photo(1), 0.05, 0.05, 0.9), photo(2))):
        world.register(f"{number}.jpg", encoded(alike, "JPEG"))
    with matchers(world.services, range(SHARDS)):
        hits = searched(world.services, world, 1, similar=True)
    assert {hit.picture % SHARDS for hit in hits} == set(range(SHARDS))
    assert hits[0].picture % SHARDS == 1, "the first shard does not have the most alike"
    scores = [hit.score or 0.0 for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_a_repeated_picture_is_decoded_once_for_all_shards(world: World) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    world.publish(*(world.found(encoded(photo(1), "JPEG", quality=50), pages=(f"http://site.example/{n}",)) for n in range(3)))
    pipeline = Pipeline(Registry(world.services, Shard(0, SHARDS)))
    with closing(Counting(1)) as decoders, closing(Spreading(world.services, pipeline, decoders, threading.Event())) as spreading:
        for message in polled(world.services, IMAGES):
            spreading.work([message])
    assert decoders.count == 1
    assert len(polled(world.services, FEATURES)) == 3


class Counting(Decoders):
    count = 0

    def fingerprint(self, data: bytes) -> Fingerprint:
        self.count += 1
        return super().fingerprint(data)


def test_each_search_of_what_was_crawled_is_one_shards(world: World, decoders: Decoders) -> None:
    data = encoded(photo(1), "JPEG")
    with closing(Images(world.services, Pipeline(Registry(world.services)), decoders, threading.Event())) as images:
        world.publish(world.found(data))
        images.work(polled(world.services, IMAGES))
    world.services.store.put("queries/s", data)
    until = world.services.clock.now() + timedelta(hours=1)
    asked = [SearchAsked(f"s{n}", world.account.id, 0, "queries/s", "scale", False, until, "p", "r", WEB) for n in range(8)]
    for number in range(SHARDS):
        pipeline, library = Pipeline(Registry(world.services, Shard(number, SHARDS))), CrawledLibrary(world.services)
        searches = Searches(world.services, pipeline, library, decoders, threading.Event())
        searches.work([Message(SEARCHES, 0, n, event.search, encode(event), {}) for n, event in enumerate(asked)])
    answers = [decode(message.value) for message in polled(world.services, RESULTS)]
    found = [(answer.search, answer.shard) for answer in answers if isinstance(answer, SearchAnswered) and answer.web]
    assert sorted(search for search, _ in found) == [event.search for event in asked]
    assert {shard for _, shard in found} == set(range(SHARDS))


def test_a_silent_shard_makes_a_search_unavailable(world: World) -> None:
    register(world)
    data, patience = encoded(photo(1), "JPEG"), timedelta(seconds=3)
    with (
        matchers(world.services, [1]),
        closing(Answers(world.services)) as answers,
        pytest.raises(Unavailable, match="not answered in time"),
    ):
        answers.search(world.account, data, transform="scale", similar=False, category=None, patience=patience)


def test_p_values_count_the_keys_of_all_shards(world: World) -> None:
    marked, registration = embed(photo(1))
    world.register("a.jpg", encoded(photo(1), "PNG"), watermark=registration)
    data = encoded(crop(marked, 0.3, 0.3, 0.4), "JPEG", quality=30)
    whole, *shards = (
        [d for d in Pipeline(Registry(world.services, shard)).matches(world.found(data), given(data)) if d.key_id]
        for shard in (Shard(), Shard(0, SHARDS), Shard(1, SHARDS))
    )
    (alone,), (divided,) = whole, [draft for found in shards for draft in found]
    assert alone.p_value is not None
    assert alone.p_value > 1e-300
    assert divided.p_value == pytest.approx(SHARDS * alone.p_value, rel=1e-9, abs=0)


def serve(settings: Settings) -> None:
    with Services.open(settings) as services:
        worker.run(services, threading.Event())


@pytest.mark.timeout(300)
def test_two_shards_of_two_replicas_over_kafka_and_one_is_killed(tmp_path_factory: pytest.TempPathFactory, kafka_server: str) -> None:
    settings = Settings(
        data=tmp_path_factory.mktemp("shards"),
        bus_url=f"kafka://{kafka_server}",
        topic_prefix=f"{uuid4().hex}.",
        topic_partitions=4,
        kafka_options={"session_timeout_ms": 2000, "heartbeat_interval_ms": 500},  # who was killed is missed soon
    )
    with Services.open(settings) as services, ExitStack() as opened:
        world = World(services)
        media = register(world)
        wanted = crawled(world, media)
        processes = [start(serve, of_shard(settings, number)) for number in range(SHARDS) for _ in range(2)]
        for process in processes:
            opened.callback(process.join, PATIENCE)
            opened.callback(process.kill)
        _wait_until_some(world)
        processes[0].kill()
        processes[0].join(PATIENCE)
        assert processes[0].exitcode == -signal.SIGKILL
        wait_for_all(services)
        assert matched(world) == wanted
        hits = [hit for number in range(PICTURES) for hit in searched(services, world, number)]
        assert {hit.picture % SHARDS for hit in hits} == set(range(SHARDS))
        assert len({hit.picture for hit in hits}) == PICTURES
        assert services.bus.lag(IMAGES, "matcher") == 0


def _wait_until_some(world: World) -> None:
    """Until at least one match is there: work is under way."""
    until = time.monotonic() + PATIENCE
    while not world.matches():
        assert time.monotonic() < until
        time.sleep(0.05)
