"""Dead letters are listed, replayed once, and never lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from core.bus import Message, Outgoing, dead_letter, deadletters
from core.bus.embedded import EmbeddedBus
from core.errors import Unavailable
from tests.processes import start


@pytest.fixture
def bus(tmp_path: Path) -> EmbeddedBus:
    return EmbeddedBus(tmp_path / "bus.sqlite")


def _bury(bus: EmbeddedBus, count: int, code: str = "invalid_image") -> None:
    letters = [
        Message("images", 0, number, f"key{number}", f"{code} {number}".encode(), {"request_id": f"r{number}"}) for number in range(count)
    ]
    bus.publish([dead_letter(letter, code, "why") for letter in letters])


def _values(bus: EmbeddedBus, topic: str) -> list[bytes]:
    follower = bus.follow(topic, "earliest")
    try:
        return sorted(message.value for message in follower.poll(0, 100_000))
    finally:
        follower.close()


def test_a_letter_says_what_it_is(bus: EmbeddedBus) -> None:
    _bury(bus, 1)
    (letter,) = deadletters.letters(bus, "images")
    assert (letter.topic, letter.code, letter.reason, letter.source, letter.request_id, letter.message.value) == (
        "images",
        "invalid_image",
        "why",
        "images/0/0",
        "r0",
        b"invalid_image 0",
    )
    assert len(list(deadletters.letters(bus, "images"))) == 1, "looking changes nothing"
    assert list(deadletters.letters(bus, "searches")) == []


def test_what_is_replayed_is_as_it_was_and_is_replayed_once(bus: EmbeddedBus) -> None:
    _bury(bus, 250)
    assert len(list(deadletters.replay(bus, "images"))) == 250
    follower = bus.follow("images", "earliest")
    messages = follower.poll(0, 1000)
    follower.close()
    assert sorted((m.key, dict(m.headers)) for m in messages) == sorted((f"key{n}", {"request_id": f"r{n}"}) for n in range(250))
    assert list(deadletters.replay(bus, "images")) == []
    assert list(deadletters.letters(bus, "images")) == []


def test_only_the_chosen_are_replayed(bus: EmbeddedBus) -> None:
    _bury(bus, 150)
    _bury(bus, 150, "object_missing")
    assert {letter.code for letter in deadletters.replay(bus, "images", "object_missing")} == {"object_missing"}
    assert len(_values(bus, "images")) == 150
    left = list(deadletters.letters(bus, "images"))
    assert [(letter.code, letter.reason, letter.request_id is not None) for letter in left] == [("invalid_image", "why", True)] * 150


def test_who_waits_for_another_replay_says_so(bus: EmbeddedBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadletters, "_SILENCE", 0.5)
    _bury(bus, 20)
    other = bus.consume("images.dead", deadletters.GROUP)
    while not other.poll(1, 1000):
        pass
    with pytest.raises(Unavailable, match="another process"):
        list(deadletters.replay(bus, "images"))
    other.close()


def _replay_and_die(path: Path, at: int) -> None:
    """kill -9 before the commit (odd) or before the publishing (even) of the `at // 2`-th piece."""
    bus = EmbeddedBus(path)
    consume, publish, calls = bus.consume, bus.publish, [0, 0]

    def die_at(which: int) -> None:
        calls[which] += 1
        if calls[which] == at // 2 + 1 and which == at % 2:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying_publish(messages: Sequence[Outgoing]) -> None:
        die_at(0)
        publish(messages)

    def dying_consume(topic: str, group: str) -> object:
        consumer = consume(topic, group)
        commit = consumer.commit

        def dying_commit(messages: Sequence[Message]) -> None:
            die_at(1)
            commit(messages)

        consumer.commit = dying_commit  # type: ignore[method-assign]
        return consumer

    bus.publish, bus.consume = dying_publish, dying_consume  # type: ignore[method-assign, assignment]
    list(deadletters.replay(bus, "images", "invalid_image"))


@pytest.mark.parametrize("at", range(4))
def test_a_replay_that_is_killed_loses_nothing(bus: EmbeddedBus, at: int) -> None:
    _bury(bus, 150)
    _bury(bus, 150, "object_missing")
    process = start(_replay_and_die, bus.path, at)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    list(deadletters.replay(bus, "images", "invalid_image"))
    assert {*_values(bus, "images")} == {f"invalid_image {number}".encode() for number in range(150)}
    left = {letter.message.value for letter in deadletters.letters(bus, "images")}
    assert left >= {f"object_missing {number}".encode() for number in range(150)}
