"""J03: Kafka's retention passes messages that no matcher has read: it is noticed, and every copy gets its match all the same."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest
from kafka import KafkaAdminClient

from core.clock import ManualClock
from core.events import IMAGES
from core.models import Topic
from core.repo import crawls
from core.services import Services
from core.settings import Settings
from core.shards import GROUP
from crawler.journal import Image, Piece, Pointer, encode_piece
from scheduler import heal
from tests.core.crawled import begin, hold, segment
from tests.core.test_bus_kafka import drop
from tests.matcher.pictures import encoded, photo
from tests.matcher.world import World, matching

PATIENCE = 120


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def world(distributed: Settings, clock: ManualClock) -> Iterator[World]:
    with Services.open(distributed, clock=clock) as services:
        yield World(services)


def image(number: int, data: bytes, offset: int) -> Image:
    return Image(
        f"http://cdn.example/{number}.jpg",
        f"http://site.example/{number}",
        "fetched",
        1.0,
        0.0,
        status=200,
        content_type="image/jpeg",
        bytes=len(data),
        md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
        sha256=hashlib.sha256(data).hexdigest(),
        tar=Pointer(0, offset, len(data)),
    )


def crawl(world: World, copies: Sequence[bytes]) -> list[str]:
    """A running cycle that found each copy on a page of its own, a stored and unsent piece of journal each; the pages."""
    services, now = world.services, world.services.clock.now()
    held = hold(services, "site.example", now=now)
    session = begin(services, held, world.session, now)
    images = [image(number, data, sum(map(len, copies[:number]))) for number, data in enumerate(copies)]
    objects = {("tar", 0): b"".join(copies)} | {("journal", n): encode_piece(Piece(n, (each,))) for n, each in enumerate(images)}
    rows = [segment(held, session, kind, seq, now, data) for (kind, seq), data in objects.items()]
    for row, data in zip(rows, objects.values(), strict=True):
        services.store.put(row.key, data)
    with services.database.write() as tx:
        crawls.store_segments(tx, held, rows)
    return [each.page_url for each in images]


def test_retention_passes_what_matchers_had_not_read(world: World, clock: ManualClock, distributed: Settings) -> None:
    services = world.services
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    world.publish(*(world.found(encoded(photo(70), "JPEG", quality=quality)) for quality in range(50, 62)))
    with matching(world):
        pass  # and then it is away
    pages = crawl(world, [encoded(photo(1), "JPEG", quality=quality) for quality in range(50, 62)])
    clock.advance(31)
    assert sum(heal.topics(services)) == 0, "the first look"
    assert sum(heal.resend(services)) == services.bus.lag(IMAGES, GROUP) == len(pages)
    admin = KafkaAdminClient(bootstrap_servers=distributed.bus_url.removeprefix("kafka://"))
    drop(admin, f"{distributed.topic_prefix}{IMAGES}", distributed.topic_partitions)
    admin.close()
    with matching(world), matching(world):
        wait_for_notice(services)
        until = time.monotonic() + PATIENCE
        while len(world.matches()) < len(pages):
            assert time.monotonic() < until
            schedule(services, clock)
            time.sleep(0.1)
    assert Counter(match.page_url for match in world.matches()) == Counter(pages)


def wait_for_notice(services: Services) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        with services.database.read() as tx:
            if tx.get_one(Topic, IMAGES).missed is not None:
                return
        assert time.monotonic() < until, "nobody noticed"
        time.sleep(0.05)


def schedule(services: Services, clock: ManualClock) -> None:
    """Ten seconds of a scheduler."""
    clock.advance(10)
    for job in (heal.topics, heal.resend):
        list(job(services))
