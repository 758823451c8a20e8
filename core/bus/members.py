"""The embedded bus's readers: followers, and members of groups.

A group's partitions are leased to its members. A member renews its membership when it polls or commits (`commit(())` only renews);
one that is silent for `lease` seconds, or whose process is gone, is dropped by the others. Shares follow from the sorted list of
members, so all agree without talking. Leases use the machine's monotonic clock: changes of the wall clock do nothing.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Final

import structlog

from core.bus import Message, fenced_total, last_offsets, liveness, missed_total
from core.bus.sqlite import Connection, News
from core.errors import Unavailable

_BEAT: Final = 1.0  # seconds between two renewals at most; they cost no sync

log = structlog.get_logger()


class _Reader:
    """Reads partitions of a topic from a position each, in turn, so that a full one does not hide the others."""

    def __init__(self, connection: Connection, topic: str, positions: dict[int, int]) -> None:
        self._connection = connection
        self._news = News(connection)
        self._topic = topic
        self._positions = positions
        self._turn = 0

    def _read(self, max_messages: int) -> list[Message]:
        messages: list[Message] = []
        for partition in self._next_order():
            if len(messages) >= max_messages:
                break
            found = self._connection.rows(
                "SELECT seq, key, value, headers FROM log WHERE topic = ? AND partition = ? AND seq > ? ORDER BY seq LIMIT ?",
                self._topic,
                partition,
                self._positions[partition],
                max_messages - len(messages),
            )
            if found:
                self._positions[partition] = found[-1][0]
                messages += [Message(self._topic, partition, seq, key, value, json.loads(headers)) for seq, key, value, headers in found]
        return messages

    def _next_order(self) -> list[int]:
        owned = sorted(self._positions)
        self._turn += 1
        at = self._turn % len(owned) if owned else 0
        return owned[at:] + owned[:at]


class EmbeddedFollower(_Reader):
    """Implements `core.bus.Follower`."""

    def poll(self, timeout: float, max_messages: int = 100) -> list[Message]:
        until = time.monotonic() + timeout
        while True:
            self._news.arrived()
            if (messages := self._read(max_messages)) or not self._news.wait(until):
                return messages

    def close(self) -> None:
        self._connection.close()


class EmbeddedConsumer(_Reader):
    """Implements `core.bus.Consumer`: one member of a group.

    `fenced` counts partitions whose commit came too late: they had gone to another member, which gets those messages again.
    """

    def __init__(self, connection: Connection, topic: str, group: str, partitions: int, lease: float) -> None:
        super().__init__(connection, topic, {})
        self.fenced = 0
        self._missed = False
        self._group = group
        self._member = uuid.uuid4().hex
        self._lease = lease
        self._process = liveness.identity()
        self._generation = -1
        self._next_beat = 0.0
        with connection.transaction() as raw:
            raw.execute("INSERT OR IGNORE INTO groups VALUES (?, ?, 0)", (topic, group))
            raw.executemany("INSERT OR IGNORE INTO cursors VALUES (?, ?, ?, 0, NULL)", [(topic, group, p) for p in range(partitions)])
        self._beat()

    def poll(self, timeout: float, max_messages: int = 100) -> list[Message]:
        until = time.monotonic() + timeout
        while True:
            self._news.arrived()
            if time.monotonic() >= self._next_beat or self._generation_now() != self._generation:
                self._beat()
            messages = self._read(max_messages)
            if messages or (not self._news.wait(min(until, self._next_beat)) and time.monotonic() >= until):
                return messages

    def commit(self, messages: Sequence[Message]) -> None:
        with self._connection.transaction() as raw:
            for partition, offset in last_offsets(messages).items():
                found = raw.execute(
                    "UPDATE cursors SET committed = max(committed, ?) WHERE topic = ? AND name = ? AND partition = ? AND member = ?",
                    (offset, self._topic, self._group, partition, self._member),
                )
                if found.rowcount == 0:
                    self._note_fenced(partition)
            self._renew(raw)

    def missed(self) -> bool:
        missed, self._missed = self._missed, False
        return missed

    def close(self) -> None:
        """Idempotent."""
        if self._connection.inherited:
            return
        # closed already, or the file cannot be written: then the lease decides
        with contextlib.suppress(sqlite3.ProgrammingError, Unavailable), self._connection.transaction() as raw:
            raw.execute("DELETE FROM members WHERE id = ?", (self._member,))
            self._raise_generation(raw)
        self._connection.close()

    def _generation_now(self) -> int:
        return int(self._connection.value("SELECT generation FROM groups WHERE topic = ? AND name = ?", self._topic, self._group))

    def _beat(self) -> None:
        """Renews the membership, drops silent members, and takes or gives partitions until this member has its share."""
        with self._connection.transaction() as raw:
            changed = self._drop_silent(raw) + self._renew(raw)
            members = [row[0] for row in raw.execute("SELECT id FROM members WHERE topic = ? AND name = ? ORDER BY id", self._ours)]
            cursors = raw.execute("SELECT partition, committed, member FROM cursors WHERE topic = ? AND name = ?", self._ours).fetchall()
            mine = {partition: committed for partition, committed, member in cursors if member == self._member}
            free = {partition: committed for partition, committed, member in cursors if member not in members}
            fair = share(len(cursors), len(members), members.index(self._member))
            given = self._give(raw, mine, len(mine) - fair)
            taken = self._take(raw, free, fair - len(mine))
            if changed or given:
                self._raise_generation(raw)
            self._generation = self._generation_now()
        kept = mine.keys() - given
        self._positions = {p: self._positions.get(p, mine[p]) for p in kept} | taken

    @property
    def _ours(self) -> tuple[str, str]:
        return self._topic, self._group

    def _renew(self, raw: sqlite3.Connection) -> int:
        """Says that this member lives; returns 1 if its membership is new or was dropped."""
        now = time.monotonic()
        self._next_beat = now + min(self._lease / 5, _BEAT)
        new = raw.execute("SELECT 1 FROM members WHERE id = ?", (self._member,)).fetchone() is None
        raw.execute(
            "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?)", (self._member, *self._ours, now, self._lease, self._process)
        )
        return int(new)

    def _drop_silent(self, raw: sqlite3.Connection) -> int:
        others = raw.execute(
            "SELECT id, renewed, lease, process FROM members WHERE topic = ? AND name = ? AND id != ?", (*self._ours, self._member)
        ).fetchall()
        silent = [(id_,) for id_, renewed, lease, process in others if _is_over(renewed, lease) or liveness.is_gone(process)]
        raw.executemany("DELETE FROM members WHERE id = ?", silent)
        return len(silent)

    def _give(self, raw: sqlite3.Connection, mine: dict[int, int], count: int) -> set[int]:
        """Gives up that many partitions, those first in which nothing is uncommitted."""
        given = sorted(mine, key=lambda p: (self._positions.get(p, 0) > mine[p], -p))[: max(count, 0)]
        self._assign(raw, None, given)
        return set(given)

    def _take(self, raw: sqlite3.Connection, free: dict[int, int], count: int) -> dict[int, int]:
        taken = {p: free[p] for p in sorted(free)[: max(count, 0)]}
        self._note_missed(raw, taken)
        self._assign(raw, self._member, taken)
        return taken

    def _assign(self, raw: sqlite3.Connection, member: str | None, partitions: Iterable[int]) -> None:
        raw.executemany(
            "UPDATE cursors SET member = ? WHERE topic = ? AND name = ? AND partition = ?", [(member, *self._ours, p) for p in partitions]
        )

    def _raise_generation(self, raw: sqlite3.Connection) -> None:
        """Tells the other members to look again."""
        raw.execute("UPDATE groups SET generation = generation + 1 WHERE topic = ? AND name = ?", self._ours)

    def _note_missed(self, raw: sqlite3.Connection, taken: dict[int, int]) -> None:
        """Before a group's first member came, the log was kept by age alone."""
        for partition, trimmed in raw.execute("SELECT partition, seq FROM trimmed WHERE topic = ?", (self._topic,)):
            if trimmed > taken.get(partition, trimmed):
                self._missed = True
                missed_total.labels(self._topic).inc()
                log.error("bus.messages_missed", topic=self._topic, partition=partition, reason="trimmed")

    def _note_fenced(self, partition: int) -> None:
        self.fenced += 1
        fenced_total.labels(self._topic).inc()
        log.warning("bus.commit_too_late", topic=self._topic, partition=partition)


def share(partitions: int, members: int, rank: int) -> int:
    """How many partitions the member at `rank` (0-based) of the sorted members gets; shares differ by at most one."""
    return partitions // members + (rank < partitions % members)


def _is_over(renewed: float, lease: float) -> bool:
    """Whether a lease has ended; a renewal in the future is from before a restart of the machine."""
    return not 0 <= time.monotonic() - renewed <= lease
