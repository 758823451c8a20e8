"""Puts dead letters back, on whichever bus."""

from __future__ import annotations

from typing import Final

from core.bus import Bus, Message, Outgoing

_GROUP: Final = "replay"
_ADDED: Final = frozenset({"code", "reason", "source"})
_PATIENCE: Final = 10.0


def replay(bus: Bus, topic: str) -> int:
    """Publishes the dead letters of `topic` to it again, each once; returns how many.

    Only what was dead at the start counts: what dies again waits for the next replay. A crash in the middle may send the last
    few twice, which their receivers bear.
    """
    dead = f"{topic}.dead"
    left = total = bus.lag(dead, _GROUP)
    consumer = bus.consume(dead, _GROUP)
    try:
        while left > 0 and (messages := consumer.poll(_PATIENCE, min(left, 100))):
            bus.publish([_revived(topic, message) for message in messages])
            consumer.commit(messages)
            left -= len(messages)
    finally:
        consumer.close()
    return total - left


def _revived(topic: str, message: Message) -> Outgoing:
    return Outgoing(topic, message.key, message.value, {name: text for name, text in message.headers.items() if name not in _ADDED})
