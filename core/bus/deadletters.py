"""Dead letters: messages that could not be worked on, with the reason and their original bytes, until they are replayed.

A replay is a member of a group of its own on `<topic>.dead`. Each letter is published again first and acknowledged then, so one that is
killed loses nothing; what it had published and not acknowledged comes twice, which changes nothing downstream.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from core.bus import Bus, Consumer, Message, Outgoing
from core.errors import Unavailable

GROUP: Final = "replay"
_KEPT: Final = "kept"
"""Header: the replay that moved a letter."""
_OURS: Final = frozenset({"code", "reason", "source", _KEPT})
"""Headers that a message got on its way here."""
_AT_ONCE: Final = 100
_SILENCE: Final = 30.0
"""Seconds without a letter that is there: another replay holds it."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message of the topic `topic` that lies with the dead letters."""

    topic: str
    message: Message

    @property
    def code(self) -> str:
        return self.message.headers.get("code", "")

    @property
    def reason(self) -> str:
        return self.message.headers.get("reason", "")

    @property
    def source(self) -> str:
        """topic/partition/offset of the original."""
        return self.message.headers.get("source", "")

    @property
    def request_id(self) -> str | None:
        return self.message.headers.get("request_id")


def name(topic: str) -> str:
    return f"{topic}.dead"


def letters(bus: Bus, topic: str) -> Iterator[Letter]:
    """Those that are there and were not replayed yet. Raises Unavailable."""
    for _, messages in _present(bus, topic, ""):
        yield from (Letter(topic, message) for message in messages)


def replay(bus: Bus, topic: str, code: str | None = None) -> Iterator[Letter]:
    """Publishes again on their topic the letters that are there now, all or those with this code; yields each that was.

    The others stay: they are moved behind the last one. What dies again meanwhile may take the place of one that is there now; that is
    left for the next replay. Raises Unavailable; what was not yielded is still there.
    """
    run = uuid.uuid4().hex
    for consumer, messages in _present(bus, topic, run):
        chosen = [code in (None, message.headers.get("code")) for message in messages]
        bus.publish([_again(topic, m) if is_chosen else _kept(m, run) for m, is_chosen in zip(messages, chosen, strict=True)])
        consumer.commit(messages)
        yield from (Letter(topic, message) for message in itertools.compress(messages, chosen))


def _present(bus: Bus, topic: str, run: str) -> Iterator[tuple[Consumer, list[Message]]]:
    """As many as are there at the beginning, and what the replay `run` has moved. Raises Unavailable: another process has them."""
    consumer = bus.consume(name(topic), GROUP)
    try:
        left = bus.lag(name(topic), GROUP)
        until = time.monotonic() + _SILENCE
        while left > 0:
            messages = consumer.poll(0.5, min(left, _AT_ONCE))
            if messages:
                left -= sum(message.headers.get(_KEPT) != run for message in messages)
                until = time.monotonic() + _SILENCE
                yield consumer, messages
            elif time.monotonic() > until:
                raise Unavailable(f"another process has the dead letters of {topic}", code="replay_running")
    finally:
        consumer.close()


def _again(topic: str, message: Message) -> Outgoing:
    return Outgoing(topic, message.key, message.value, {key: value for key, value in message.headers.items() if key not in _OURS})


def _kept(message: Message, run: str) -> Outgoing:
    return Outgoing(message.topic, message.key, message.value, {**message.headers, _KEPT: run})
