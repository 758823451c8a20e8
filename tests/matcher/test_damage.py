"""G12: bytes that are not those that were stored are never taken for the picture: read again, and in the end a dead letter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.bus import deadletters
from core.events import IMAGES, encode
from core.objectstore.s3 import connection
from core.services import Services
from core.settings import Settings
from matcher.member import TRIES
from matcher.reading import DAMAGED
from tests.matcher.pictures import encoded, photo
from tests.matcher.world import World, matching
from tests.servers import s3
from tests.servers.proxy import Answer, Call, Proxy


@pytest.fixture
def proxy(s3_server: s3.Bucket, s3_settings: dict[str, str]) -> Iterator[Proxy]:
    with Proxy(int(s3_server.endpoint.rsplit(":", 1)[1])) as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, s3_settings: dict[str, str], proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The store is reached through the proxy."""
    monkeypatch.setattr(connection, "TRIES", 2)
    with Services.open(Settings(data=tmp_path, store_url=s3_settings["store_url"], s3_endpoint_url=proxy.url)) as services:
        yield World(services)


class Damaging:
    """The first so many answers with a part of an object are spoiled."""

    def __init__(self, times: int, spoil: Callable[[Answer], Answer]) -> None:
        self._left, self._spoil = times, spoil
        self.reads = 0

    def __call__(self, call: Call) -> Answer | None:
        answer = call.forward()
        if call.method != "GET" or not call.header("Range"):
            return answer
        self.reads += 1
        return self._spoil(answer) if self.reads <= self._left else answer


def flipped(answer: Answer) -> Answer:
    """Another byte in the middle."""
    middle = len(answer.body) // 2
    return replace(answer, body=answer.body[:middle] + bytes([answer.body[middle] ^ 1]) + answer.body[middle + 1 :])


def elsewhere(answer: Answer) -> Answer:
    """It is said to be another part."""
    return answer.with_header("Content-Range", "bytes 1-2/3")


def publish(world: World, *qualities: int) -> list[bytes]:
    """Copies of a registered picture, in one segment; the messages."""
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    datas = [encoded(photo(1), "JPEG", quality=quality) for quality in qualities]
    events = [world.found(data, place) for data, place in zip(datas, world.store(datas), strict=True)]
    world.publish(*events)
    return [encode(event) for event in events]


@pytest.mark.parametrize("spoil", [flipped, elsewhere])
def test_damage_on_the_way_is_read_again(world: World, proxy: Proxy, spoil: Callable[[Answer], Answer]) -> None:
    publish(world, 50, 60, 70)
    proxy.behaviour = Damaging(2, spoil)
    with matching(world):
        pass
    assert len(world.matches()) == 3
    assert list(deadletters.letters(world.services.bus, IMAGES)) == []


@pytest.mark.parametrize("spoil", [flipped, elsewhere])
def test_damage_for_ever_is_a_dead_letter_after_some_tries(world: World, proxy: Proxy, spoil: Callable[[Answer], Answer]) -> None:
    values = publish(world, 50)
    proxy.behaviour = damaging = Damaging(1_000_000, spoil)
    with matching(world):
        pass
    assert world.matches() == []
    assert [(letter.code, letter.message.value) for letter in deadletters.letters(world.services.bus, IMAGES)] == [(DAMAGED, values[0])]
    assert damaging.reads <= connection.TRIES * (TRIES + 1)

    proxy.behaviour = Call.forward
    list(deadletters.replay(world.services.bus, IMAGES, DAMAGED))
    with matching(world):
        pass
    assert len(world.matches()) == 1


def test_a_segment_that_was_overwritten_holds_up_no_other_picture(services: Services) -> None:
    world = World(services)
    values = publish(world, 50)
    place = "crawl/1/1/1/0.tar"
    other = encoded(photo(1), "JPEG", quality=90)
    services.store.put(place, services.store.get(place)[:512] + other)  # a picture, and a copy, but not the one that was found
    publish(world, 60, 70)
    with matching(world):
        pass
    assert [(letter.code, letter.message.value) for letter in deadletters.letters(services.bus, IMAGES)] == [(DAMAGED, values[0])]
    assert len(world.matches()) == 2
