"""Poison: each message has its tries, then lies with the dead letters; no other waits for it; a replay tries it again."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import timedelta

import pytest

from core.bus import Message, MessageTooLarge, Outgoing, deadletters
from core.events import IMAGES, SEARCHES, SearchAsked, SessionWoken, StoredAt, encode
from core.services import Services
from matcher.copies.features import Fingerprint
from matcher.decode import Decoders
from matcher.member import TRIES
from tests.matcher.pictures import encoded, photo
from tests.matcher.world import World, matching

KILLER = b"\xff\xd8\xff killer"


@pytest.fixture
def world(services: Services) -> World:
    return World(services)


@pytest.fixture
def killings(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A decoder that these bytes really kill, each time; how often that was."""
    killed: list[bytes] = []
    read = Decoders.fingerprint

    def reading(decoders: Decoders, data: bytes) -> Fingerprint:
        if data == KILLER:
            killed.append(data)
            decoders.run(os._exit, 1)
        return read(decoders, data)

    monkeypatch.setattr(Decoders, "fingerprint", reading)
    return killed


def _dead(services: Services, topic: str) -> dict[str, list[Message]]:
    found: dict[str, list[Message]] = {}
    for letter in deadletters.letters(services.bus, topic):
        found.setdefault(letter.code, []).append(letter.message)
    return found


def _poison(world: World) -> dict[bytes, str]:
    """Publishes it, between good pictures: value -> the code that it will lie there with."""
    newer = json.loads(encode(world.found(b"newer"))) | {"v": 99}
    gone = StoredAt(99, "crawl/1/1/1/99.tar", 0, 10)
    found = [world.found(KILLER), world.found(b"garbage"), world.found(encoded(photo(1), "JPEG")[:2000]), world.found(b"gone", gone)]
    codes = ["decoder_died", "invalid_image", "invalid_image", "object_missing"]
    values = {encode(event): code for event, code in zip(found, codes, strict=True)}
    for value in (b"no JSON", json.dumps(newer).encode(), encode(SessionWoken(1, "a.example"))):
        values[value] = "message_invalid"
    for number, value in enumerate(values):
        world.publish(world.found(encoded(photo(1), "JPEG", quality=40 + number), pages=(f"http://site.example/{number}",)))
        world.services.bus.publish([Outgoing(IMAGES, hashlib.sha256(value).hexdigest(), value, {"request_id": f"r{number}"})])
    return values


def test_poison_holds_up_no_other_and_can_be_replayed(world: World, killings: list[bytes]) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    values = _poison(world)
    with pytest.raises(MessageTooLarge):
        world.services.bus.publish([Outgoing(IMAGES, "k", bytes(11 << 20))])
    with matching(world):
        pass
    assert len(world.matches()) == len(values), "the good ones"
    assert len(killings) == TRIES
    dead = _dead(world.services, IMAGES)
    assert {message.value: code for code, messages in dead.items() for message in messages} == values
    letters = [message for messages in dead.values() for message in messages]
    assert sorted(message.headers["request_id"] for message in letters) == [f"r{number}" for number in range(len(values))]
    assert all(message.headers["reason"] and message.headers["source"].startswith("images/") for message in letters)

    (replayed,) = deadletters.replay(world.services.bus, IMAGES, "decoder_died")
    assert (replayed.topic, replayed.code, replayed.request_id) == (IMAGES, "decoder_died", "r0")
    with matching(world):
        pass
    assert len(killings) == 2 * TRIES
    assert {code: len(messages) for code, messages in _dead(world.services, IMAGES).items()} == {
        code: len(messages) for code, messages in dead.items()
    }, "what failed again lies there again"


def test_a_replay_once_the_cause_is_gone_makes_the_match(world: World) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    data = encoded(photo(1), "JPEG", quality=50)
    place = world.store([data])[0]
    segment = world.services.store.get(place.key)
    world.services.store.delete([place.key])
    world.publish(world.found(data, place))
    with matching(world):
        pass
    assert world.matches() == []
    world.services.store.put(place.key, segment)
    assert [letter.code for letter in deadletters.replay(world.services.bus, IMAGES)] == ["object_missing"]
    with matching(world):
        pass
    assert len(world.matches()) == 1
    assert _dead(world.services, IMAGES) == {}


def test_poisoned_searches(world: World, killings: list[bytes]) -> None:
    world.services.store.put("queries/s1", KILLER)
    deadline = world.services.clock.now() + timedelta(hours=1)
    killer = encode(SearchAsked("s1", world.account.id, 0, "queries/s1", "scale", False, deadline, "p", "r1"))
    for number, value in enumerate((b"no JSON", encode(world.found(b"x")), killer)):
        world.services.bus.publish([Outgoing(SEARCHES, str(number), value, {"request_id": f"r{number}"})])
    with matching(world):
        pass
    assert len(killings) == TRIES
    dead = _dead(world.services, SEARCHES)
    assert {code: len(messages) for code, messages in dead.items()} == {"message_invalid": 2, "decoder_died": 1}
    assert [message.value for message in dead["decoder_died"]] == [killer]
