"""The Kafka bus on a real broker: the contract, and what only Kafka does."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from core.bus import Bus, Consumer, Message, MessageTooLarge, Outgoing
from core.bus.kafka import KafkaBus, reader
from core.errors import InvalidInput, Unavailable
from core.services import Services
from core.settings import Settings
from tests.core.contract_bus import PATIENCE, BusContract, Opener, drain, numbered, numbers, publish_and_poll, until

QUICK = {"session_timeout_ms": 1500, "heartbeat_interval_ms": 300, "max_poll_interval_ms": 2000}


def new_prefix() -> str:
    return f"t{uuid.uuid4().hex[:12]}."


@dataclass(frozen=True)
class KafkaOpener:
    """A bus with names of its own in a broker that is shared."""

    servers: str
    options: dict[str, Any] = field(default_factory=lambda: dict(QUICK))
    prefix: str = field(default_factory=new_prefix)
    partitions: int = 8

    def __call__(self) -> KafkaBus:
        return KafkaBus(self.servers, prefix=self.prefix, options=self.options, partitions=self.partitions)


def drop(admin: KafkaAdminClient, name: str, partitions: int = 8) -> None:
    """Everything that is in the topic is gone, as if its retention had passed."""
    admin.delete_records({TopicPartition(name, number): -1 for number in range(partitions)})


class TestKafkaBus(BusContract):
    @pytest.fixture
    def opener(self, kafka_server: str) -> Opener:
        return KafkaOpener(kafka_server)

    def drop(self, bus: Bus, topic: str) -> None:
        assert isinstance(bus, KafkaBus)
        drop(bus._clients.admin(), bus._topics.name(topic))


@pytest.fixture
def opener(kafka_server: str) -> KafkaOpener:
    return KafkaOpener(kafka_server)


@pytest.fixture
def bus(opener: KafkaOpener) -> Iterator[KafkaBus]:
    bus = opener()
    yield bus
    bus.close()


@pytest.fixture
def admin(kafka_server: str) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(bootstrap_servers=kafka_server)
    yield admin
    admin.close()


# --- what was dropped unread


def test_retention_that_passes_what_a_group_has_committed_is_told(bus: KafkaBus, opener: KafkaOpener, admin: KafkaAdminClient) -> None:
    bus.publish(numbered("images", 40))
    first = bus.consume("images", "g")
    first.commit(drain(first, 10)[:10])
    first.close()
    drop(admin, f"{opener.prefix}images")
    bus.publish(numbered("images", 50)[40:])
    second = bus.consume("images", "g")
    messages = drain(second, 10)
    assert sorted(numbers(messages)) == list(range(40, 50))
    assert second.missed()
    second.commit(messages)
    assert bus.lag("images", "g") == 0
    second.close()


def published(bus: KafkaBus, messages: list[Outgoing]) -> bool:
    """As callers do: what is refused is published again."""
    with suppress(Unavailable):
        bus.publish(messages)
        return True
    return False


@pytest.mark.parametrize("length", [5, 200], ids=["shorter", "longer"])
def test_a_topic_that_was_made_anew_is_told_and_read_from_its_beginning(
    bus: KafkaBus, opener: KafkaOpener, admin: KafkaAdminClient, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A longer one hides that the offsets are of another topic: only its identity tells."""
    monkeypatch.setattr(reader, "LOOK_SECONDS", 0.5)
    bus.publish(numbered("images", 60))
    consumer, follower = bus.consume("images", "g"), bus.follow("images", "earliest")
    consumer.commit(drain(consumer, 60))
    drain(follower, 60)
    before = bus.identity("images")
    admin.delete_topics([f"{opener.prefix}images"])
    until(lambda: bus.identity("images") != before)
    until(lambda: published(bus, numbered("images", length)))
    seen: dict[str, set[int]] = {"consumer": set(), "follower": set()}

    def all_seen() -> bool:
        messages = consumer.poll(0.2)
        consumer.commit(messages)
        seen["consumer"] |= set(numbers(messages))
        seen["follower"] |= set(numbers(follower.poll(0.2)))
        return seen["consumer"] == seen["follower"] == set(range(length)) and bus.lag("images", "g") == 0

    until(all_seen)
    until(lambda: bool(consumer.poll(0.1)) or consumer.missed())
    consumer.close()
    follower.close()


def test_a_topic_that_is_gone_is_made_again_by_publishing(bus: KafkaBus, opener: KafkaOpener, admin: KafkaAdminClient) -> None:
    bus.publish(numbered("images", 5))
    admin.delete_topics([f"{opener.prefix}images"])
    impatient = replace(opener, options={"delivery_timeout_ms": 3000, "request_timeout_ms": 1000, "max_block_ms": 1000})()

    def published() -> bool:
        try:
            impatient.publish(numbered("images", 5))
        except Unavailable:
            return False
        return True

    until(published)
    impatient.close()
    assert bus.lag("images", "g") == 5


def test_partitions_that_are_added_while_members_poll_are_read(opener: KafkaOpener, admin: KafkaAdminClient) -> None:
    """With short polls the client's rejoin outlasts them: it must not be forgotten."""
    bus = replace(opener, options={**QUICK, "metadata_max_age_ms": 300})()
    bus.publish(numbered("images", 40))
    members = [bus.consume("images", "g") for _ in range(3)]
    follower = bus.follow("images", "latest")
    with _Polling(members) as polling:
        until(lambda: polling.seen >= set(range(40)))
        admin.create_partitions({f"{opener.prefix}images": 20})
        other = opener()
        until(lambda: other.identity("images") == bus.identity("images"))
        other.publish([Outgoing("images", f"key{n}", str(n).encode()) for n in range(40, 240)])
        other.close()
        until(lambda: polling.seen == set(range(240)))
        followed = drain(follower, 200)
    assert sorted(numbers(followed)) == list(range(40, 240))
    assert max(message.partition for message in followed) >= 8
    assert bus.lag("images", "g") == 0
    follower.close()
    bus.close()


class _Polling:
    """Members that poll briefly and commit, each in its thread."""

    def __init__(self, members: list[Any]) -> None:
        self.seen: set[int] = set()
        self._members = members
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(len(members))

    def _work(self, member: Consumer) -> None:
        while not self._stop.is_set():
            messages = member.poll(0.01)
            self.seen |= set(numbers(messages))
            member.commit(messages)
        member.close()

    def __enter__(self) -> _Polling:
        self._running = [self._threads.submit(self._work, member) for member in self._members]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for running in self._running:
            running.result()
        self._threads.shutdown()


# --- members


def test_long_work_that_says_it_is_alive_keeps_its_partitions(bus: KafkaBus) -> None:
    bus.publish(numbered("images", 20))
    slow = bus.consume("images", "g")
    messages = drain(slow, 20)
    ends = time.monotonic() + 1.5 * QUICK["max_poll_interval_ms"] / 1000
    while time.monotonic() < ends:
        slow.commit(())
        time.sleep(0.3)
    slow.commit(messages)
    assert (slow.fenced, bus.lag("images", "g")) == (0, 0)
    bus.publish(numbered("images", 25)[20:])
    assert sorted(numbers(drain(slow, 5))) == list(range(20, 25)), "what came meanwhile was not lost"
    slow.close()


def test_rebalance_does_not_take_from_a_member_what_it_keeps(bus: KafkaBus) -> None:
    """What was polled before a rebalance may be committed after it, for partitions that stay; the others' come again elsewhere."""
    bus.publish(numbered("images", 80, keys=80))
    first = bus.consume("images", "g")
    messages = drain(first, 80)
    second = bus.consume("images", "g")
    other: list[Message] = []
    with ThreadPoolExecutor(1) as threads:
        joining = threads.submit(drain, second, 1)

        def joined() -> bool:
            first.commit(())
            return joining.done()

        until(joined)
        other = joining.result()
    first.commit(messages)
    moved = {message.partition for message in other + second.poll(1.0)}
    assert moved
    assert first.fenced == 8 - len({m.partition for m in messages} - moved) > 0
    assert bus.lag("images", "g") == sum(message.partition in moved for message in messages)
    assert first.poll(0.5) == [], "what it keeps goes on where it was"
    first.close()
    second.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_process_opens_its_own_clients(bus: KafkaBus) -> None:
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.SimpleQueue[object] = context.SimpleQueue()
    consumer = bus.consume("images", "g")
    bus.publish(numbered("images", 1))
    drain(consumer, 1)
    child = context.Process(target=publish_and_poll, args=(bus, consumer, answers))
    child.start()
    assert answers.get() == 6
    assert "fork" in str(answers.get())
    child.join(PATIENCE)
    assert child.exitcode == 0
    bus.publish(numbered("images", 5))
    assert len(drain(consumer, 10)) == 10
    consumer.close()


# --- topics and messages


def test_topics_are_made_once_as_they_should_be(opener: KafkaOpener, admin: KafkaAdminClient) -> None:
    buses = [replace(opener, partitions=6)() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for topic in ("images", "media", "images.dead"):
            list(threads.map(lambda bus, topic=topic: bus.publish(numbered(topic, 3)), buses))
    found = admin.describe_topics([f"{opener.prefix}images"])
    assert len(found[0]["partitions"]) == 6
    assert _config(admin, f"{opener.prefix}images") == {"cleanup.policy": "delete", "retention.ms": str(7 * 86_400_000)}
    assert _config(admin, f"{opener.prefix}images.dead") == {"cleanup.policy": "delete", "retention.ms": "-1"}
    assert _config(admin, f"{opener.prefix}media")["cleanup.policy"] == "compact"
    for bus in buses:
        bus.close()


def _config(admin: KafkaAdminClient, name: str) -> dict[str, str]:
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    found = admin.describe_configs([resource], config_filter="all")
    return {key: _find(found, key) for key in ("cleanup.policy", "retention.ms")}


def _find(found: Any, key: str) -> str:
    if isinstance(found, dict):
        if key in found:
            inner = found[key]
            return str(inner["value"] if isinstance(inner, dict) else inner)
        found = list(found.values())
    return next((value for inner in found if isinstance(inner, (dict, list)) and (value := _find(inner, key))), "")


def test_message_above_the_limits_is_refused(bus: KafkaBus, opener: KafkaOpener, admin: KafkaAdminClient) -> None:
    with pytest.raises(MessageTooLarge):
        bus.publish([Outgoing("images", "k", b"x" * 11_000_000)])
    bus.publish([Outgoing("images", "k", bytes(999_000))])
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, f"{opener.prefix}images", {"max.message.bytes": "2000"})])
    with pytest.raises(MessageTooLarge, match="brokers"):
        bus.publish([Outgoing("images", "k", os.urandom(16_000))])


@pytest.mark.parametrize("topic", ["", "a b", "é", "x" * 240])
def test_topic_needs_a_name(bus: KafkaBus, topic: str) -> None:
    for use in (lambda: bus.publish([Outgoing(topic, "k", b"")]), lambda: bus.consume(topic, "g"), lambda: bus.follow(topic, "latest")):
        with pytest.raises(InvalidInput):
            use()


def test_what_others_wrote_does_not_break_reading(bus: KafkaBus, opener: KafkaOpener) -> None:
    bus.identity("images")
    raw = KafkaProducer(bootstrap_servers=opener.servers)
    for key, value, headers in (
        (b"\xff\xfe", b"\x00", [("request_id", b"\xff"), ("v", b"99"), ("v", b"2")]),
        (b"tombstone", None, []),
        (None, b"no key", [("empty", b"")]),
    ):
        raw.send(f"{opener.prefix}images", value, key, headers)
    raw.close()
    consumer = bus.consume("images", "g")
    messages = sorted(drain(consumer, 3), key=lambda message: message.value)
    consumer.commit(messages)
    consumer.close()
    assert [message.value for message in messages] == [b"", b"\x00", b"no key"]
    assert [dict(message.headers) for message in messages] == [{}, {"request_id": "\ufffd", "v": "2"}, {"empty": ""}]
    assert [message.key for message in messages] == ["tombstone", "\ufffd\ufffd", ""]
    assert bus.lag("images", "g") == 0


# --- settings


@pytest.mark.parametrize(
    ("servers", "options"),
    [
        ("localhost:1", {"sasl_plain_pasword": "s3cret"}),
        ("localhost:1", {"acks": "1"}),
        ("user:s3cret@localhost:1", {}),
    ],
)
def test_wrong_settings_are_named_without_their_secrets(servers: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        KafkaBus(servers, options=options).consume("images", "g").poll(0)
    assert caught.value.code == "settings_invalid"
    assert "s3cret" not in str(caught.value)


def test_options_that_no_client_can_work_with_are_said(opener: KafkaOpener) -> None:
    bus = replace(opener, options={"request_timeout_ms": 20_000, "connections_max_idle_ms": 10_000})()
    with pytest.raises(InvalidInput, match="connections_max_idle_ms") as caught:
        bus.consume("images", "g").poll(0)
    assert caught.value.code == "settings_invalid"
    bus.close()


def test_services_open_it_with_prefix_options_and_version(kafka_server: str, tmp_path: Path) -> None:
    settings = Settings(
        data=tmp_path,
        bus_url=f"kafka://{kafka_server}",
        topic_prefix=new_prefix(),
        topic_partitions=3,
        kafka_api_version="3.9",
        kafka_options={"client_id": "other"},
    )
    with Services.open(settings) as services:
        services.bus.publish(numbered("images", 5))
        assert services.bus.lag("images", "g") == 5
        consumer = services.bus.consume("images", "g")
        assert {message.partition for message in drain(consumer, 5)} <= {0, 1, 2}
        consumer.close()


def test_who_uses_the_embedded_bus_does_not_load_the_client() -> None:
    script = "import sys, core.services; sys.exit('kafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
