"""kill -9 of matchers: every copy that was found has exactly one match for each of its pages."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from core.events import IMAGES
from core.services import Services
from core.settings import Settings
from core.shards import GROUP
from matcher.crawled.library import CrawledLibrary
from scheduler.crawled import merge
from tests.matcher.deaths import PLACES, SCANNING, match_until_killed
from tests.matcher.pictures import crop, encoded, mirror, photo, resize
from tests.matcher.world import World, matching, polled
from tests.processes import start

PATIENCE = 120
REGISTERED = 2
OTHERS = 3

Wanted = Counter[tuple[int, str]]
Record = Callable[[str, object], None]


def crawled(world: World, draw: random.Random) -> Wanted:
    """Registers pictures and publishes what a crawl found, some of it twice; (media id, page) of every match that is to be."""
    media = [world.register(f"{number}.jpg", encoded(photo(number), "JPEG")).media_id for number in range(REGISTERED)]
    copies = [
        (media[number], encoded(changed, "JPEG", quality=draw.randint(50, 90)))
        for number in range(REGISTERED)
        for changed in (photo(number), mirror(photo(number)), resize(photo(number), 0.7), crop(photo(number), 0.1, 0.1, 0.8))
    ]
    strangers = [(0, encoded(photo(50 + number), "JPEG")) for number in range(OTHERS)]
    found, wanted = [], Wanted()
    places = world.store([data for _, data in (*copies, *strangers)])
    for index, ((media_id, data), place) in enumerate(zip((*copies, *strangers), places, strict=True)):
        for visit in range(3):
            pages = [f"http://site.example/{index}/{visit}/{page}" for page in range(draw.randint(1, 4))]
            found += [world.found(data, place, pages=pages, cycle=visit)] * draw.randint(1, 2)
            wanted.update((media_id, page) for page in pages if media_id)
    draw.shuffle(found)
    world.publish(*found)
    return wanted


def matched(world: World) -> Wanted:
    return Wanted((node.id, match.page_url) for match in world.matches() for node in match.media)


def note(record: Record, wanted: Wanted, found: Wanted) -> None:
    record("acknowledged", wanted.total())
    record("lost", (wanted - found).total())
    record("doubled", (found - wanted).total())


def kill_at_each_place(settings: Settings, seed: int, record: Record, places: Sequence[str] = PLACES) -> None:
    """A matcher is killed at each place, in any order; the last one finishes."""
    draw = random.Random(seed)
    with Services.open(settings) as services:
        world = World(services)
        wanted = crawled(world, draw)
        for place in draw.sample(places, len(places)):
            process = start(match_until_killed, settings, place, draw.randint(1, 2))
            process.join(PATIENCE)
            assert process.exitcode == -signal.SIGKILL, f"it was to die at {place}"
        with matching(world):
            pass
        note(record, wanted, matched(world))
        assert matched(world) == wanted
        assert services.bus.lag(IMAGES, GROUP) == 0
        list(merge(services))
        assert searchable(world) == dict.fromkeys(digests(world), 1)


def kill_while_scanning(settings: Settings, seed: int, record: Record, places: Sequence[str] = SCANNING) -> None:
    """A matcher is killed at each place while what was registered is looked for in what was crawled before; the last one finishes."""
    draw = random.Random(seed)
    with Services.open(settings) as services:
        world = World(services)
        data = [encoded(changed, "JPEG", quality=70) for number in range(2) for changed in (photo(number), mirror(photo(number)))]
        found = [world.found(some, pages=[f"http://site.example/{n}/{page}" for page in range(3)]) for n, some in enumerate(data)]
        world.publish(*found)
        with matching(world):
            pass
        media = [world.register(f"{number}.jpg", encoded(photo(number), "JPEG")).media_id for number in range(2)]
        for place in draw.sample(places, len(places)):
            process = start(match_until_killed, settings, place, 1)
            process.join(PATIENCE)
            assert process.exitcode == -signal.SIGKILL, f"it was to die at {place}"
        with matching(world):
            pass
        wanted = Wanted((media[n // 2], sighting.page_url) for n, event in enumerate(found) for sighting in event.sightings)
        note(record, wanted, matched(world))
        assert matched(world) == wanted


def searchable(world: World) -> Counter[str]:
    """Digest -> how many files of crawled pictures have it."""
    files = CrawledLibrary(world.services).visible(world.account.id)
    return Counter(bytes(digest).hex() for file in files for digest in file.pictures.digests)


def digests(world: World) -> set[str]:
    return {message.key for message in polled(world.services, IMAGES)}


def kill_at_random(settings: Settings, seed: int, record: Record) -> None:
    """Two matchers, one of them killed again and again at any moment."""
    draw = random.Random(seed)
    with Services.open(settings) as services:
        world = World(services)
        wanted = crawled(world, draw)
        stop = threading.Event()
        survivor = start(match_until_killed, settings, "nowhere", 1)
        for _ in range(3):
            victim = start(match_until_killed, settings, "nowhere", 1)
            before = services.bus.lag(IMAGES, GROUP)
            until = time.monotonic() + PATIENCE
            while services.bus.lag(IMAGES, GROUP) == before and before and time.monotonic() < until:
                stop.wait(0.02)
            stop.wait(draw.random())
            victim.kill()
            victim.join()
        with matching(world):
            survivor.kill()
            survivor.join()
        note(record, wanted, matched(world))
        assert matched(world) == wanted


@pytest.fixture
def embedded(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path)


def test_a_kill_at_each_place(embedded: Settings, record_property: Record) -> None:
    kill_at_each_place(embedded, 1, record_property)


def test_a_kill_while_registrations_are_looked_for(embedded: Settings, record_property: Record) -> None:
    kill_while_scanning(embedded, 1, record_property)


def test_kills_on_kafka_postgresql_and_s3(distributed: Settings, record_property: Record) -> None:
    kill_at_each_place(distributed, 2, record_property, ("filing", "inserted"))


@pytest.mark.long
@pytest.mark.parametrize("seed", range(50))
def test_many_kills(embedded: Settings, seed: int, record_property: Record) -> None:
    """G02: kill -9 of matchers on the embedded parts; each copy that was found has exactly one match for each page."""
    (kill_at_each_place, kill_at_random, kill_while_scanning)[seed % 3](embedded, seed, record_property)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(50, 100))
def test_many_kills_on_kafka_postgresql_and_s3(distributed: Settings, seed: int, record_property: Record) -> None:
    """G02: kill -9 of matchers on Kafka, PostgreSQL and S3; each copy that was found has exactly one match for each page."""
    (kill_at_each_place, kill_at_random, kill_while_scanning)[seed % 3](distributed, seed, record_property)
