from __future__ import annotations

import multiprocessing
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.bus import MAX_MESSAGE_BYTES, Bus, MessageTooLarge, Outgoing
from core.bus.embedded import EmbeddedBus, partition_of
from core.bus.members import EmbeddedConsumer, share
from core.bus.sqlite import VERSION
from core.errors import Corrupt, InvalidInput, Unavailable
from tests.core.contract_bus import BusContract, Opener, assert_order_per_key, drain, numbered, numbers, publish_and_poll


@dataclass(frozen=True)
class EmbeddedOpener:
    path: Path
    lease: float = 0.3

    def __call__(self) -> EmbeddedBus:
        return EmbeddedBus(self.path, lease=self.lease)


class TestEmbeddedBus(BusContract):
    @pytest.fixture
    def opener(self, tmp_path: Path) -> Opener:
        return EmbeddedOpener(tmp_path / "bus.sqlite")

    def drop(self, bus: Bus, topic: str) -> None:
        assert isinstance(bus, EmbeddedBus)
        bus.trim(topic, datetime.now(UTC) + timedelta(hours=1))


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[EmbeddedBus]:
    bus = EmbeddedBus(tmp_path / "bus.sqlite", lease=0.3)
    yield bus
    bus.close()


def test_compacted_topic_keeps_the_last_value_of_each_key(bus: EmbeddedBus) -> None:
    bus.publish(numbered("media", 100, keys=7))
    bus.publish(numbered("media", 7, keys=7))
    follower = bus.follow("media", "earliest")
    messages = drain(follower, 7) + follower.poll(0)
    follower.close()
    assert sorted(numbers(messages)) == list(range(7))


def test_follower_of_a_compacted_topic_sees_what_changes_while_it_reads(bus: EmbeddedBus) -> None:
    bus.publish(numbered("media", 14, keys=7))
    follower = bus.follow("media", "earliest")
    drain(follower, 3)
    bus.publish([Outgoing("media", f"key{n}", str(100 + n).encode()) for n in range(7)])
    last = {message.key: int(message.value) for message in drain(follower, 7) + follower.poll(0)}
    follower.close()
    assert last == {f"key{n}": 100 + n for n in range(7)}


def test_the_file_remembers_its_partitions(tmp_path: Path) -> None:
    with_three = EmbeddedBus(tmp_path / "bus", partitions=3)
    with_eight = EmbeddedBus(tmp_path / "bus", partitions=8)
    assert with_three.partitions == with_eight.partitions == 3
    with_three.close()
    with_eight.close()


def test_partition_of_a_key_never_changes() -> None:
    assert [partition_of(key, 8) for key in ("", "a", "kéy", "0" * 64)] == [0, 3, 7, 3]


@given(st.integers(1, 64), st.integers(1, 64))
def test_shares_are_equal_and_cover_all_partitions(partitions: int, members: int) -> None:
    shares = [share(partitions, members, rank) for rank in range(members)]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1


def test_message_above_the_limit_is_refused(bus: EmbeddedBus) -> None:
    bus.publish([Outgoing("images", "k", b"x" * (MAX_MESSAGE_BYTES - 3))])
    with pytest.raises(MessageTooLarge):
        bus.publish([Outgoing("images", "k", b"x" * MAX_MESSAGE_BYTES)])


@pytest.mark.parametrize("topic", ["", "a b", "é", "x" * 201])
def test_topic_needs_a_name(bus: EmbeddedBus, topic: str) -> None:
    for use in (lambda: bus.publish([Outgoing(topic, "k", b"")]), lambda: bus.consume(topic, "g"), lambda: bus.follow(topic, "latest")):
        with pytest.raises(InvalidInput):
            use()


def test_trim_drops_what_is_old_and_committed_by_all_groups(bus: EmbeddedBus) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    bus.publish(numbered("images", 30))
    one, two = bus.consume("images", "one"), bus.consume("images", "two")
    assert bus.trim("images", later) == 0
    one.commit(drain(one, 30))
    assert bus.trim("images", later) == 0, "the second group has not committed"
    two.commit(drain(two, 10))
    assert bus.trim("images", datetime.now(UTC) - timedelta(hours=1)) == 0, "not old enough"
    assert bus.trim("images", later) == 10
    assert bus.lag("images", "two") == 20
    assert len(drain(two, 20)) == 20
    one.close()
    two.close()


def test_trim_of_followed_topics_goes_by_age_and_leaves_compacted_ones_alone(bus: EmbeddedBus) -> None:
    bus.publish([*numbered("sessions", 2500), *numbered("media", 7)])
    later = datetime.now(UTC) + timedelta(hours=1)
    assert bus.trim("sessions", later) == 2500
    assert bus.trim("media", later) == 0


def test_old_messages_are_dropped_by_publishing_but_dead_letters_stay(tmp_path: Path) -> None:
    EmbeddedBus(tmp_path / "bus").publish([*numbered("sessions", 5), *numbered("images.dead", 5), *numbered("images", 5)])
    bus = EmbeddedBus(tmp_path / "bus", retention=timedelta(seconds=-60))
    consumer = bus.consume("images", "g")
    consumer.commit(drain(consumer, 2))
    bus.publish(numbered("searches", 1))
    assert {topic: bus.lag(topic, "nobody") for topic in ("sessions", "images.dead", "images", "searches")} == {
        "sessions": 0,
        "images.dead": 5,
        "images": 3,
        "searches": 0,
    }
    consumer.close()
    bus.close()


def test_offsets_are_not_used_twice_after_a_trim(bus: EmbeddedBus) -> None:
    follower = bus.follow("results", "latest")
    bus.publish(numbered("results", 5))
    drain(follower, 5)
    bus.trim("results", datetime.now(UTC) + timedelta(hours=1))
    bus.publish([Outgoing("results", "key1", b"5")])
    assert numbers(drain(follower, 1)) == [5]
    follower.close()


def test_full_disk_is_said_and_nothing_is_half_written(bus: EmbeddedBus) -> None:
    bus.publish(numbered("images", 10))
    pages = bus._writer.connection.value("PRAGMA page_count")
    bus._writer.connection.value(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(Unavailable) as caught:
        bus.publish([Outgoing("images", "k", b"x" * 1000) for _ in range(100)])
    assert caught.value.code == "bus_full"
    assert bus.lag("images", "g") == 10
    bus._writer.connection.value(f"PRAGMA max_page_count = {pages + 1000}")
    bus.publish(numbered("images", 1))
    assert bus.lag("images", "g") == 11


def test_damaged_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "bus").write_bytes(b"no database at all, but long enough to look like one" * 100)
    with pytest.raises(Corrupt):
        EmbeddedBus(tmp_path / "bus")


def test_older_file_is_brought_up_to_date(tmp_path: Path) -> None:
    EmbeddedBus(tmp_path / "bus").publish(numbered("images", 5))
    raw = sqlite3.connect(tmp_path / "bus")
    raw.executescript("DROP TABLE identity; DROP TABLE trimmed; PRAGMA user_version = 1")
    raw.close()
    bus, other = EmbeddedBus(tmp_path / "bus"), EmbeddedBus(tmp_path / "bus")
    assert bus.identity("images") == other.identity("images")
    assert bus.lag("images", "g") == 5
    bus.close()
    other.close()


def test_newer_file_is_refused(tmp_path: Path) -> None:
    EmbeddedBus(tmp_path / "bus").close()
    raw = sqlite3.connect(tmp_path / "bus")
    raw.execute(f"PRAGMA user_version = {VERSION + 1}")
    raw.close()
    with pytest.raises(Unavailable, match="newer"):
        EmbeddedBus(tmp_path / "bus")


def test_commit_of_nothing_renews_the_membership(bus: EmbeddedBus) -> None:
    slow = bus.consume("images", "g")
    with bus._writer.connection.transaction() as raw:
        raw.execute("UPDATE members SET renewed = 0")
    slow.commit(())
    assert bus._writer.connection.value("SELECT renewed FROM members") > 0
    slow.close()


def test_membership_from_before_a_restart_of_the_machine_does_not_last(bus: EmbeddedBus) -> None:
    bus.publish(numbered("images", 5))
    before = bus.consume("images", "g")
    with bus._writer.connection.transaction() as raw:
        raw.execute("UPDATE members SET renewed = renewed + 1e6, lease = 1000")
    after = bus.consume("images", "g")
    assert len(drain(after, 5)) == 5
    after.close()
    before.close()


def _join_and_wait(path: Path, joined: multiprocessing.SimpleQueue[int]) -> None:
    consumer = EmbeddedBus(path, lease=3600).consume("images", "g")
    joined.put(len(consumer.poll(0)))
    consumer.poll(3600)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_partitions_of_a_killed_process_move_before_its_lease_ends(bus: EmbeddedBus) -> None:
    bus.publish(numbered("images", 20))
    context = multiprocessing.get_context("spawn")
    joined: multiprocessing.SimpleQueue[int] = context.SimpleQueue()
    child = context.Process(target=_join_and_wait, args=(bus.path, joined))
    child.start()
    assert joined.get() == 20
    child.kill()
    child.join()
    consumer = bus.consume("images", "g")
    assert len(drain(consumer, 20)) == 20
    consumer.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_process_opens_its_own_connections(bus: EmbeddedBus) -> None:
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.SimpleQueue[object] = context.SimpleQueue()
    consumer = bus.consume("images", "g")
    child = context.Process(target=publish_and_poll, args=(bus, consumer, answers))
    child.start()
    assert answers.get() == 5
    assert "fork" in str(answers.get())
    child.join()
    bus.publish(numbered("images", 5))
    assert bus.lag("images", "g") == 10
    assert len(drain(consumer, 10)) == 10
    consumer.close()
    consumer.close()


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 9)), st.tuples(st.sampled_from(["poll", "commit", "join", "leave"]), st.integers(0, 2))
    )
)


@settings(max_examples=40, deadline=None)
@given(_steps)
def test_whatever_members_do_every_message_is_worked_on_in_order(steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bus = EmbeddedBus(Path(folder) / "bus", partitions=4, lease=60)
        run = _Run(bus)
        for name, number in steps:
            getattr(run, name)(number)
        run.finish()
        bus.close()


class _Run:
    """Members that come and go; keeps what was committed and checks that the rest comes again."""

    def __init__(self, bus: EmbeddedBus) -> None:
        self.bus = bus
        self.members: list[EmbeddedConsumer] = []
        self.published = 0
        self.done: set[int] = set()

    def publish(self, count: int) -> None:
        numbers = range(self.published, self.published + count)
        self.bus.publish([Outgoing("images", f"key{n % 5}", str(n).encode()) for n in numbers])
        self.published += count

    def join(self, _: int) -> None:
        self.members.append(self.bus.consume("images", "g"))

    def leave(self, which: int) -> None:
        if which < len(self.members):
            self.members.pop(which).close()

    def poll(self, which: int) -> None:
        if which < len(self.members):
            assert_order_per_key(self.members[which].poll(0, 3))

    def commit(self, which: int) -> None:
        if which < len(self.members):
            member = self.members[which]
            fenced, messages = member.fenced, member.poll(0, 5)
            before = self.bus.lag("images", "g")
            member.commit(messages)
            assert member.fenced == fenced, "nobody was silent"
            assert self.bus.lag("images", "g") <= before - len(messages)

    def finish(self) -> None:
        for member in self.members:
            member.close()
        last = self.bus.consume("images", "g")
        left = self.bus.lag("images", "g")
        messages = drain(last, left)
        last.commit(messages)
        last.close()
        assert_order_per_key(messages)
        assert len(set(numbers(messages))) == left
        assert self.bus.lag("images", "g") == 0
