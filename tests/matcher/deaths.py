"""A matcher that is killed, -9, at a chosen place: between a poll, the recording of its matches, and its commit."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy.orm import Session

from core.bus import Bus, Consumer, Message
from core.events import IMAGES
from core.repo import matches
from core.services import Services
from core.settings import Settings
from matcher import images, worker

PLACES: Final = ("polled", "inserting", "inserted", "committed")


class Death:
    """kill -9 of this process when it comes to the place for the `nth` time."""

    def __init__(self, place: str, nth: int) -> None:
        self._place = place
        self._left = nth

    def at(self, place: str) -> None:
        if place == self._place:
            self._left -= 1
            if self._left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def match_until_killed(settings: Settings, place: str, nth: int, at_once: int = 8) -> None:
    """The real matcher, in small turns."""
    death = Death(place, nth)
    images._AT_ONCE = at_once  # type: ignore[misc]
    matches.record = _recording(matches.record, death)
    with Services.open(settings) as services:
        worker.run(replace(services, bus=_Deadly(services.bus, death)), threading.Event())


def _recording(record: Callable[..., Any], death: Death) -> Callable[..., Any]:
    def recording(tx: Session, *rest: Any) -> Any:
        new = record(tx, *rest)
        death.at("inserting")
        return new

    return recording


class _Deadly:
    """A bus whose consumers know where their process is to die."""

    def __init__(self, bus: Bus, death: Death) -> None:
        self._bus = bus
        self._death = death

    def consume(self, topic: str, group: str) -> Any:
        consumer = self._bus.consume(topic, group)
        return _Dying(consumer, self._death) if topic == IMAGES else consumer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bus, name)


class _Dying:
    """Such a consumer."""

    def __init__(self, consumer: Consumer, death: Death) -> None:
        self._consumer = consumer
        self._death = death

    def poll(self, timeout: float, max_messages: int = 100) -> list[Message]:
        messages = self._consumer.poll(timeout, max_messages)
        if messages:
            self._death.at("polled")
        return messages

    def commit(self, messages: Sequence[Message]) -> None:
        if messages:
            self._death.at("inserted")
        self._consumer.commit(messages)
        if messages:
            self._death.at("committed")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)
