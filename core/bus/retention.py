"""What the embedded log drops: messages that are old and that every group of their topic has committed.

Topics without a group are followed, so age alone decides there; but dead letters stay until they were replayed.
"""

from __future__ import annotations

import itertools
from typing import Final

from core.bus.sqlite import Connection

_ROWS: Final = 1000


def topics(connection: Connection) -> list[str]:
    """All topics with messages, by jumps along the index."""
    found: list[str] = []
    while (topic := connection.value("SELECT min(topic) FROM log WHERE topic > ?", found[-1] if found else "")) is not None:
        found.append(topic)
    return found


def trim(connection: Connection, topic: str, partition: int, before: float) -> int:
    """Drops at most 1,000 messages published before that time (seconds since 1970), the oldest first; returns how many."""
    kept_without_group = 0 if topic.endswith(".dead") else 1 << 62
    oldest = connection.rows(
        "SELECT seq, published, seq <= coalesce((SELECT min(committed) FROM cursors WHERE topic = ?1 AND partition = ?2), ?4)"
        " FROM log WHERE topic = ?1 AND partition = ?2 ORDER BY seq LIMIT ?3",
        topic,
        partition,
        _ROWS,
        kept_without_group,
    )
    done = [(seq,) for seq, _, _ in itertools.takewhile(lambda row: row[1] < before and row[2], oldest)]
    if done:
        with connection.transaction() as raw:
            raw.executemany("DELETE FROM log WHERE seq = ?", done)
            raw.execute("INSERT OR REPLACE INTO trimmed VALUES (?, ?, ?)", (topic, partition, done[-1][0]))
    return len(done)
