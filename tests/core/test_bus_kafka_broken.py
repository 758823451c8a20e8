"""The Kafka bus while brokers die, are away, or do not let us in; and while members come and go."""

from __future__ import annotations

import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from core.bus import Consumer, Follower, Outgoing
from core.bus.kafka import KafkaBus, clients
from core.errors import Unavailable
from tests.conftest import needed
from tests.core.contract_bus import drain, numbered, numbers, until
from tests.core.test_bus_kafka import QUICK, KafkaOpener
from tests.servers import free_port, kafka

Record = Callable[[str, object], None]
IMPATIENT = {**QUICK, "delivery_timeout_ms": 2500, "request_timeout_ms": 1500, "max_block_ms": 1000, "bootstrap_timeout_ms": 2000}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kafka.Kafka]:
    """A broker that may be killed."""
    needed("kafka", kafka.get)
    with kafka.Kafka(tmp_path_factory.mktemp("broker"), sasl_port=free_port()) as broker:
        yield broker


@pytest.fixture
def opener(broker: kafka.Kafka) -> KafkaOpener:
    return KafkaOpener(broker.bootstrap, IMPATIENT)


@pytest.fixture
def bus(opener: KafkaOpener) -> Iterator[KafkaBus]:
    bus = opener()
    yield bus
    bus.close()


@contextmanager
def refused(code: str = "bus_") -> Iterator[None]:
    with pytest.raises(Unavailable) as caught:
        yield
    assert caught.value.code.startswith(code)
    assert "FILIGRANE_" in caught.value.details or "another publish" in caught.value.details


# --- away


def test_broker_that_is_absent_is_said_and_leaves_nothing_behind() -> None:
    before = set(threading.enumerate())
    with refused("bus_unavailable"):
        KafkaBus(f"127.0.0.1:{free_port()}", options={"bootstrap_timeout_ms": 500})
    until(lambda: not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("kafka")])


def test_a_producer_that_is_given_up_ends_with_its_thread_and_what_it_holds(
    broker: kafka.Kafka, opener: KafkaOpener, bus: KafkaBus
) -> None:
    """kafka-python's own close() gives up before it stops the thread, as long as something is not acknowledged."""
    bus.publish(numbered("images", 1))
    producer = bus._clients.producer()
    thread = producer._sender
    broker.kill()
    held = producer.send(f"{opener.prefix}images", b"nobody takes it")
    bus._clients.drop_producer(producer)
    until(lambda: not thread.is_alive())
    assert held.failed()
    broker.launch()
    bus.publish(numbered("images", 1))
    assert bus._clients.producer() is not producer


def test_broker_that_goes_is_said_in_bounded_memory_and_back_by_itself(
    broker: kafka.Kafka, bus: KafkaBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "_ASKING_SECONDS", 1.0)
    consumer, follower = bus.consume("images", "g"), bus.follow("images", "earliest")
    bus.publish(numbered("images", 50))
    consumer.commit(drain(consumer, 50))
    broker.kill()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lost = [Outgoing("images", "lost", bytes(100_000)) for _ in range(100)]
    for _ in range(2):
        with refused():
            bus.publish(lost)
    with ThreadPoolExecutor(16) as threads:
        failures = list(threads.map(lambda _: _failure(bus, lost), range(64)))
    assert all(failures)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kB; 660 MB were refused"
    until(lambda: _poll_fails(consumer))
    until(lambda: _poll_fails(follower))
    broker.launch()
    until(lambda: not _failure(bus, numbered("images", 60)[50:]))
    seen: set[bytes] = set()

    def caught_up() -> bool:
        try:
            messages = consumer.poll(0.2)
            consumer.commit(messages)
            seen.update(message.value for message in messages)
            return not bus.lag("images", "g")
        except Unavailable:
            return False

    until(caught_up)
    assert seen == {str(number).encode() for number in range(50, 60)}, "what was refused does not arrive on its own"
    consumer.close()
    follower.close()


def _poll_fails(reader: Consumer | Follower) -> bool:
    try:
        return bool(reader.poll(0.2))
    except Unavailable:
        return True


def _failure(bus: KafkaBus, messages: list[Outgoing]) -> str:
    """The code of the error with which publishing ends, or nothing."""
    try:
        bus.publish(messages)
    except Unavailable as error:
        return error.code
    return ""


def test_silent_broker_does_not_hold_up_closing(broker: kafka.Kafka, opener: KafkaOpener) -> None:
    bus = opener()
    consumer = bus.consume("images", "g")
    bus.publish(numbered("images", 10))
    drain(consumer, 10)
    broker.pause()

    def close() -> None:
        consumer.close()
        bus.close()

    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(20)
    broker.resume()
    assert not closing.is_alive()


# --- killed


def _kill_while_publishing(broker: kafka.Kafka, opener: KafkaOpener, seed: int, kills: int, record: Record) -> None:
    """Whatever was acknowledged is there, in order; what was refused was published again by us, so all are there."""
    rng = random.Random(seed)
    bus = replace(opener, options={**QUICK, "bootstrap_timeout_ms": 2000})()
    stop = threading.Event()
    acknowledged: dict[str, list[int]] = {}

    def publish(key: str) -> None:
        sent = acknowledged.setdefault(key, [])
        number = 0
        while not stop.is_set():
            batch = range(number, number + 1 + number % 7)
            if not _failure(bus, [Outgoing("images", key, str(n).encode()) for n in batch]):
                sent.extend(batch)
                number = batch.stop

    publishers = [threading.Thread(target=publish, args=(f"key{n}",)) for n in range(3)]
    bus.publish(numbered("warm", 1))
    for publisher in publishers:
        publisher.start()
    for _ in range(kills):
        count = _count(acknowledged)
        until(lambda count=count: _count(acknowledged) > count + 50)  # type: ignore[misc]
        time.sleep(rng.uniform(0, 0.3))
        broker.kill()
        time.sleep(rng.uniform(0, 0.5))
        broker.launch()
    count = _count(acknowledged)
    until(lambda: _count(acknowledged) > count + 50)
    stop.set()
    for publisher in publishers:
        publisher.join()
    follower = bus.follow("images", "earliest")
    end = bus.lag("images", "nobody")
    found = drain(follower, end)
    assert len(found) == end
    lost = 0
    for key, sent in acknowledged.items():
        of_key = [int(message.value) for message in found if message.key == key]
        firsts = list(dict.fromkeys(of_key))
        lost += len(set(sent) - set(of_key))
        assert firsts == sorted(firsts), "out of order"
    record("acknowledged", _count(acknowledged))
    record("lost", lost)
    assert lost == 0
    follower.close()
    bus.close()


def _count(acknowledged: dict[str, list[int]]) -> int:
    return sum(len(sent) for sent in list(acknowledged.values()))


def test_kill_of_the_broker_loses_nothing_acknowledged(broker: kafka.Kafka, opener: KafkaOpener, record_property: Record) -> None:
    _kill_while_publishing(broker, opener, seed=0, kills=2, record=record_property)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 21))
def test_kills_of_the_broker_lose_nothing_acknowledged(
    broker: kafka.Kafka, opener: KafkaOpener, seed: int, record_property: Record
) -> None:
    """G04: kill -9 of the broker under producers, five times a run."""
    _kill_while_publishing(broker, opener, seed, kills=5, record=record_property)


# --- members come and go


def _storm(bus: KafkaBus, seed: int, joins: int, record: Record) -> None:
    """Two members stay, others join and leave; what was committed is not done again, and the rest goes on."""
    rng = random.Random(seed)
    total, stop = 40 * joins, threading.Event()
    done: Counter[int] = Counter()
    committed: Counter[int] = Counter()
    lock = threading.Lock()

    def work(member: Consumer, turns: int | None) -> None:
        while not stop.is_set() and turns != 0:
            messages = member.poll(0.1, 10)
            before = member.fenced  # type: ignore[attr-defined]
            member.commit(messages)
            with lock:
                done.update(numbers(messages))
                if member.fenced == before:  # type: ignore[attr-defined]
                    committed.update(numbers(messages))
            turns = turns - 1 if turns is not None else None
        member.close()

    with ThreadPoolExecutor(4) as threads:
        staying = [threads.submit(work, bus.consume("images", "g"), None) for _ in range(2)]
        try:
            for join in range(joins):
                bus.publish([Outgoing("images", f"key{n}", str(n).encode()) for n in range(join * 40, join * 40 + 40)])
                before = len(committed)
                threads.submit(work, bus.consume("images", "g"), rng.randrange(1, 12)).result()
                until(lambda before=before: len(committed) > before)  # type: ignore[misc]
            until(lambda: not bus.lag("images", "g"))
        finally:
            stop.set()
        for member in staying:
            member.result()
    record("acknowledged", len(committed))
    record("lost", total - len(done))
    record("doubled", sum(count - 1 for count in committed.values()))
    assert set(done) == set(range(total))
    assert set(committed.values()) == {1}, "committed, and done again"


def test_storm_of_rebalances_stops_nothing_and_doubles_nothing_committed(kafka_server: str, record_property: Record) -> None:
    bus = KafkaOpener(kafka_server, options={"session_timeout_ms": 6000, "heartbeat_interval_ms": 300})()
    _storm(bus, seed=0, joins=4, record=record_property)
    bus.close()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(1, 6))
def test_long_storms_stop_nothing_and_double_nothing_committed(kafka_server: str, seed: int, record_property: Record) -> None:
    """G11: members join and leave, forty times a run; nothing stops, nothing that was committed is done again."""
    bus = KafkaOpener(kafka_server, options={"session_timeout_ms": 6000, "heartbeat_interval_ms": 300})()
    _storm(bus, seed, joins=40, record=record_property)
    bus.close()


# --- not let in


def test_right_credentials_open_and_wrong_ones_are_named(broker: kafka.Kafka, capfd: pytest.CaptureFixture[str]) -> None:
    options = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": kafka.USER}
    bus = KafkaOpener(f"127.0.0.1:{broker.sasl_port}", {**IMPATIENT, **options, "sasl_plain_password": kafka.PASSWORD})()
    bus.publish(numbered("images", 3))
    assert bus.lag("images", "g") == 3
    bus.close()
    with pytest.raises(Unavailable, match=r"(SASL|credentials) in FILIGRANE_KAFKA_OPTIONS") as caught:
        KafkaBus(f"127.0.0.1:{broker.sasl_port}", options={**IMPATIENT, **options, "sasl_plain_password": "wrong s3cret"})
    assert caught.value.code in ("bus_denied", "bus_unavailable")
    assert "s3cret" not in f"{caught.value} {capfd.readouterr()}"


def test_wrong_protocol_is_said(broker: kafka.Kafka) -> None:
    for options in ({"security_protocol": "SSL"}, {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}):
        options |= {"sasl_plain_username": "u", "sasl_plain_password": "p"}
        with refused():
            KafkaBus(broker.bootstrap, options={**IMPATIENT, **options, "bootstrap_timeout_ms": 1000})
