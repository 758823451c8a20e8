"""What every bus must do; an implementation joins by subclassing `BusContract` with an `opener`."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

import pytest

from core.bus import Bus, Consumer, Follower, Message, Outgoing, dead_letter
from tests.processes import start

PATIENCE = 60.0


class Opener(Protocol):
    """Opens the same new bus in this or another process; can be pickled. A silent member is given up after some seconds or less."""

    def __call__(self) -> Bus: ...


def drain(reader: Consumer | Follower, count: int) -> list[Message]:
    """The next `count` messages."""
    deadline = time.monotonic() + PATIENCE
    found: list[Message] = []
    while len(found) < count and time.monotonic() < deadline:
        found += reader.poll(0.2, count - len(found))
    return found


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"


def numbered(topic: str, count: int, keys: int = 7) -> list[Outgoing]:
    return [Outgoing(topic, f"key{n % keys}", str(n).encode()) for n in range(count)]


def numbers(messages: Sequence[Message]) -> list[int]:
    return [int(message.value) for message in messages]


def assert_order_per_key(messages: Sequence[Message]) -> None:
    for key in {message.key for message in messages}:
        of_key = numbers([message for message in messages if message.key == key])
        assert of_key == sorted(of_key)


def work(opener: Opener, ledger: Path) -> None:
    """A worker process: notes each message when it is done, and again once it is committed, until it is killed or all is done."""
    bus = opener()
    consumer = bus.consume("images", "workers")
    with ledger.open("a") as notes:
        while bus.lag("images", "workers"):
            messages = consumer.poll(0.1, 5)
            notes.write("".join(f"done {number}\n" for number in numbers(messages)))
            notes.flush()
            consumer.commit(messages)
            if not getattr(consumer, "fenced", 0):
                notes.write("".join(f"committed {number}\n" for number in numbers(messages)))
                notes.flush()
    consumer.close()
    bus.close()


def noted(ledger: Path, word: str) -> list[int]:
    """Numbers in whole lines."""
    text = ledger.read_text() if ledger.exists() else ""
    return [int(line.split()[1]) for line in text[: text.rfind("\n") + 1].splitlines() if line.startswith(word)]


def publish_and_poll(bus: Bus, consumer: Consumer, answers: multiprocessing.SimpleQueue[object]) -> None:
    """A forked process: publishes with the bus that it came with, and tells what a consumer from before the fork says."""
    bus.publish(numbered("images", 5))
    answers.put(bus.lag("images", "g"))
    try:
        consumer.poll(0)
    except RuntimeError as error:
        answers.put(str(error))
    consumer.close()
    bus.close()


class BusContract:
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        raise NotImplementedError

    @pytest.fixture
    def bus(self, opener: Opener) -> Iterator[Bus]:
        bus = opener()
        yield bus
        bus.close()

    def drop(self, bus: Bus, topic: str) -> None:
        """Drops all messages that are in the topic, as retention would."""
        raise NotImplementedError

    def test_message_arrives_as_it_was_published(self, bus: Bus) -> None:
        bus.publish([Outgoing("images", "kéy", bytes(range(256)), {"request_id": "r\n1"})])
        consumer = bus.consume("images", "g")
        (message,) = drain(consumer, 1)
        consumer.close()
        assert (message.topic, message.key, message.value, dict(message.headers)) == (
            "images",
            "kéy",
            bytes(range(256)),
            {"request_id": "r\n1"},
        )

    def test_messages_of_one_key_keep_their_order(self, bus: Bus) -> None:
        for first in range(0, 200, 20):
            bus.publish(numbered("images", 200)[first : first + 20])
        consumer = bus.consume("images", "g")
        messages = drain(consumer, 200)
        consumer.close()
        assert sorted(numbers(messages)) == list(range(200))
        assert_order_per_key(messages)
        assert len({message.partition for message in messages}) > 1

    def test_poll_waits_for_the_first_message(self, bus: Bus) -> None:
        consumer = bus.consume("images", "g")
        assert consumer.poll(0.01) == []
        publisher = threading.Timer(0.05, bus.publish, [numbered("images", 1)])
        publisher.start()
        messages = drain(consumer, 1)
        publisher.join()
        consumer.close()
        assert numbers(messages) == [0]

    def test_what_was_not_committed_comes_again(self, bus: Bus) -> None:
        bus.publish(numbered("images", 50))
        first = bus.consume("images", "g")
        messages = drain(first, 50)
        first.commit(messages[:20])
        first.close()
        second = bus.consume("images", "g")
        again = drain(second, 1) + second.poll(0.1)
        second.close()
        committed = {(message.partition): message.offset for message in messages[:20]}
        assert sorted(numbers(again)) == sorted(
            int(message.value) for message in messages if message.offset > committed.get(message.partition, -1)
        )

    def test_groups_do_not_see_each_other(self, bus: Bus) -> None:
        bus.publish(numbered("images", 10))
        for group in ("one", "two"):
            consumer = bus.consume("images", group)
            consumer.commit(drain(consumer, 10))
            consumer.close()
        assert bus.lag("images", "one") == bus.lag("images", "two") == 0
        assert bus.lag("images", "three") == 10

    def test_lag_counts_what_is_not_committed(self, bus: Bus) -> None:
        bus.publish([*numbered("images", 30), *numbered("searches", 3)])
        consumer = bus.consume("images", "g")
        messages = drain(consumer, 30)
        assert bus.lag("images", "g") == 30
        consumer.commit(messages)
        assert bus.lag("images", "g") == 0
        consumer.commit(messages[:1])
        assert bus.lag("images", "g") == 0, "a commit never goes back"
        consumer.close()

    def test_two_members_share_and_take_over(self, bus: Bus) -> None:
        first, second = bus.consume("images", "g"), bus.consume("images", "g")
        seen: dict[str, set[int]] = {"first": set(), "second": set()}

        def work(name: str, member: Consumer) -> None:
            messages = member.poll(0.1, 1000)
            member.commit(messages)
            seen[name] = {message.partition for message in messages}

        def both_have_some() -> bool:
            bus.publish(numbered("images", 40, keys=40))
            wait([threads.submit(work, "first", first), threads.submit(work, "second", second)])
            return bool(seen["first"] and seen["second"]) and not seen["first"] & seen["second"] and bus.lag("images", "g") == 0

        with ThreadPoolExecutor(2) as threads:
            until(both_have_some)
        first.close()
        bus.publish(numbered("images", 40, keys=40))
        left = drain(second, 40)
        second.close()
        assert {message.partition for message in left} == seen["first"] | seen["second"]

    def test_silent_member_loses_its_partitions_and_cannot_commit(self, bus: Bus) -> None:
        bus.publish(numbered("images", 20))
        silent = bus.consume("images", "g")
        messages = drain(silent, 20)
        other = bus.consume("images", "g")
        assert sorted(numbers(drain(other, 20))) == list(range(20)), "all came again"
        silent.commit(messages)
        assert bus.lag("images", "g") == 20
        silent.close()
        other.close()

    def test_member_that_was_dropped_joins_again(self, bus: Bus) -> None:
        silent, other = bus.consume("images", "g"), bus.consume("images", "g")
        bus.publish(numbered("images", 20))
        other.commit(drain(other, 20))
        other.close()
        bus.publish(numbered("images", 20))
        messages = drain(silent, 20)
        silent.commit(messages)
        silent.close()
        assert len(messages) == 20
        assert bus.lag("images", "g") == 0

    def test_followers_begin_where_they_said(self, bus: Bus) -> None:
        bus.publish(numbered("sessions", 10))
        latest, earliest = bus.follow("sessions", "latest"), bus.follow("sessions", "earliest")
        bus.publish([Outgoing("sessions", "key0", b"10"), Outgoing("results", "key0", b"99")])
        assert numbers(drain(latest, 1)) == [10]
        assert latest.poll(0.01) == []
        messages = drain(earliest, 11)
        assert_order_per_key(messages)
        assert sorted(numbers(messages)) == list(range(11))
        latest.close()
        earliest.close()

    def test_every_follower_sees_everything(self, bus: Bus) -> None:
        followers = [bus.follow("media", "latest") for _ in range(3)]
        bus.publish(numbered("media", 7))
        for follower in followers:
            assert sorted(numbers(drain(follower, 7))) == list(range(7))
            follower.close()

    def test_a_dead_letter_keeps_what_it_was(self, bus: Bus) -> None:
        bus.publish([Outgoing("images", "k", b"\xff poison", {"request_id": "r"})])
        consumer = bus.consume("images", "g")
        (message,) = drain(consumer, 1)
        bus.publish([dead_letter(message, "message_invalid", "no JSON")])
        consumer.commit([message])
        consumer.close()
        dead = bus.follow("images.dead", "earliest")
        (letter,) = drain(dead, 1)
        dead.close()
        assert (letter.key, letter.value) == ("k", b"\xff poison")
        headers = {
            "request_id": "r",
            "code": "message_invalid",
            "reason": "no JSON",
            "source": f"images/{message.partition}/{message.offset}",
        }
        assert letter.headers == headers

    def test_a_group_that_comes_after_messages_were_dropped_is_told(self, bus: Bus) -> None:
        bus.publish(numbered("images", 20))
        self.drop(bus, "images")
        bus.publish(numbered("images", 21)[20:])
        late = bus.consume("images", "g")
        messages = drain(late, 1)
        assert numbers(messages) == [20]
        assert (late.missed(), late.missed()) == (True, False), "told once"
        late.commit(messages)
        late.close()

    def test_what_was_committed_is_not_missed(self, bus: Bus) -> None:
        first = bus.consume("images", "g")
        bus.publish(numbered("images", 20))
        first.commit(drain(first, 20))
        first.close()
        self.drop(bus, "images")
        bus.publish(numbered("images", 21)[20:])
        second = bus.consume("images", "g")
        assert numbers(drain(second, 1)) == [20]
        assert not first.missed()
        assert not second.missed()
        second.close()

    def test_all_processes_see_the_same_identity(self, bus: Bus, opener: Opener) -> None:
        other = opener()
        assert bus.identity("images") == other.identity("images") != bus.identity("searches")
        other.close()

    def test_concurrent_publishers_lose_nothing(self, bus: Bus) -> None:
        def publish(name: int) -> None:
            for number in range(25):
                bus.publish([Outgoing("images", f"thread{name}", str(number).encode())])

        threads = [threading.Thread(target=publish, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        follower = bus.follow("images", "earliest")
        messages = drain(follower, 200)
        follower.close()
        assert Counter(message.key for message in messages) == {f"thread{name}": 25 for name in range(8)}
        assert_order_per_key(messages)

    def test_kill_of_a_member_loses_nothing_and_repeats_nothing_committed(self, bus: Bus, opener: Opener, tmp_path: Path) -> None:
        ledgers = [tmp_path / "ledger0", tmp_path / "ledger1"]
        bus.publish(numbered("images", 600, keys=50))
        victim = start(work, opener, ledgers[0])
        until(lambda: len(noted(ledgers[0], "done")) >= 50)
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        survivor = start(work, opener, ledgers[1])
        survivor.join(PATIENCE * 2)
        assert survivor.exitcode == 0
        done = Counter(number for ledger in ledgers for number in noted(ledger, "done"))
        assert set(done) == set(range(600)), "every message was worked on"
        assert {done[number] for number in noted(ledgers[0], "committed")} == {1}, "what was committed did not come again"
        assert bus.lag("images", "workers") == 0
