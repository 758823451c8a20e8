"""A member that is slow stays a member; one that is told to stop ends soon, whatever it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from core.bus import Message, Outgoing
from core.bus.embedded import EmbeddedBus
from core.bus.kafka import KafkaBus
from core.errors import Unavailable
from core.services import Services
from core.settings import Settings
from core.shards import GROUP
from matcher import member, worker
from matcher.decode import Decoders
from matcher.member import Member, patiently
from tests.matcher.pictures import encoded, photo
from tests.matcher.world import World

TOPIC = "images"
LEASE = 1.0


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Services]:
    """A bus that throws out who is silent for a second."""
    monkeypatch.setattr(member, "_ALIVE_SECONDS", 0.1)
    with Services.open(Settings(data=tmp_path)) as services:
        bus = EmbeddedBus(tmp_path / "hasty.sqlite", partitions=4, lease=LEASE)
        yield Services(services.settings, services.database, services.store, bus, services.clock)
        bus.close()


def test_work_that_takes_longer_than_the_lease_is_done_once(hasty: Services) -> None:
    hasty.bus.publish([Outgoing(TOPIC, str(number), b"") for number in range(20)])
    done: list[tuple[int, int]] = []
    stop, held, begun = threading.Event(), threading.Event(), threading.Event()

    def slow(messages: Sequence[Message]) -> None:
        if messages:
            begun.set()
            held.wait(60)
        note(messages)

    def note(messages: Sequence[Message]) -> None:
        done.extend((message.partition, message.offset) for message in messages)

    members = [Member(hasty, TOPIC, stop, work, at_once=50) for work in (slow, note)]
    threads = [threading.Thread(target=each.run) for each in members]
    threads[0].start()
    assert begun.wait(30)
    threads[1].start()
    hasty.bus.publish([Outgoing(TOPIC, str(number), b"") for number in range(20)])
    time.sleep(3 * LEASE)  # what the slow one holds must still be its own, however long this takes
    assert len(done) < 40
    held.set()
    until = time.monotonic() + 30
    while hasty.bus.lag(TOPIC, GROUP) and time.monotonic() < until:
        time.sleep(0.02)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(done) == len(set(done)) == 40


def test_a_slow_member_stays_in_its_group_on_kafka(services: Services, kafka_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "_ALIVE_SECONDS", 0.3)
    longest = 2.0
    options = {"max_poll_interval_ms": int(longest * 1000), "session_timeout_ms": 1500, "heartbeat_interval_ms": 300}
    bus = KafkaBus(kafka_server, prefix=f"{uuid4().hex}.", partitions=4, options=options)
    stop, held = threading.Event(), threading.Event()
    done: dict[str, list[tuple[int, int]]] = {"slow": [], "quick": []}
    holding: list[Message] = []

    def note(name: str, messages: Sequence[Message]) -> None:
        if name == "slow" and any(message.value == b"hold" for message in messages):
            holding.extend(messages)
            held.wait(60)
        done[name].extend((message.partition, message.offset) for message in messages if message.value == b"hold")
        shared[name] |= {message.partition for message in messages}

    shared: dict[str, set[int]] = {"slow": set(), "quick": set()}
    on_kafka = replace(services, bus=bus)
    members = [Member(on_kafka, TOPIC, stop, partial(note, name), at_once=50) for name in done]
    threads = [threading.Thread(target=each.run) for each in members]
    for thread in threads:
        thread.start()
    try:
        until = time.monotonic() + 60
        while not all(shared.values()) or shared["slow"] & shared["quick"]:
            assert time.monotonic() < until, "the partitions are not shared out"
            for name in shared:
                shared[name].clear()
            bus.publish([Outgoing(TOPIC, str(number), b"warm") for number in range(20)])
            while bus.lag(TOPIC, GROUP) and time.monotonic() < until:
                time.sleep(0.05)
        bus.publish([Outgoing(TOPIC, str(number), b"hold") for number in range(20)])
        while not holding:
            time.sleep(0.02)
        time.sleep(3 * longest)  # what it holds must still be its own
        held.set()
        while bus.lag(TOPIC, GROUP) and time.monotonic() < until + 60:
            time.sleep(0.05)
    finally:
        held.set()
        stop.set()
        for thread in threads:
            thread.join()
        bus.close()
    assert done["slow"]
    assert len({*done["slow"], *done["quick"]}) == len(done["slow"]) + len(done["quick"]) == 20


def test_slow_turns_take_fewer_messages(hasty: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member, "_TURN_SECONDS", 0.0)
    hasty.bus.publish([Outgoing(TOPIC, "one key", b"") for _ in range(40)])
    sizes: list[int] = []
    stop = threading.Event()

    def work(messages: Sequence[Message]) -> None:
        sizes.append(len(messages))
        if sum(sizes) == 40:
            stop.set()

    Member(hasty, TOPIC, stop, work, at_once=16).run()
    assert [size for size in sizes if size][:5] == [16, 8, 4, 2, 1]


def test_who_waits_for_a_dependency_ends_at_once_when_told(hasty: Services) -> None:
    hasty.bus.publish([Outgoing(TOPIC, "k", b"")])
    stop, tried = threading.Event(), threading.Event()

    def away() -> None:
        tried.set()
        raise Unavailable("away", retry_after=3600)

    one = Member(hasty, TOPIC, stop, lambda messages: patiently(away, stop) if messages else None, at_once=5)
    thread = threading.Thread(target=one.run)
    thread.start()
    assert tried.wait(30)
    stop.set()
    thread.join(30)
    assert not thread.is_alive()
    assert hasty.bus.lag(TOPIC, GROUP) == 1, "what it held comes again"


def test_a_picture_that_hangs_does_not_hold_up_the_end(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(services)
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    hanging = threading.Event()

    def hang(decoders: Decoders, data: bytes) -> None:
        hanging.set()
        decoders.run(time.sleep, 3600)

    monkeypatch.setattr(Decoders, "fingerprint", hang)
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(services, stop))
    thread.start()
    world.publish(world.found(encoded(photo(1), "JPEG", quality=50)))
    assert hanging.wait(60)
    stop.set()
    thread.join(25)
    assert not thread.is_alive()
    assert services.bus.lag(TOPIC, GROUP) == 1
