"""A matcher that is killed, -9, at a chosen place: between a poll, its file of crawled pictures, the recording of its matches, and its
commit; or between the recording of what a registration is found in and the mark that it was looked for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from core.bus import Bus, Consumer, Message
from core.events import IMAGES
from core.repo import crawled, matches
from core.services import Services
from core.settings import Settings
from matcher import worker
from matcher.crawled import registrations
from matcher.tasks import Tasks

PLACES: Final = ("polled", "filing", "inserting", "inserted", "committed")
SCANNING: Final = ("inserting", "marking")


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
    Tasks.AT_ONCE = at_once
    registrations._LEASE_SECONDS = 1.0  # type: ignore[misc]
    matches.record = _dying(matches.record, death, "inserting")
    crawled.add = _dying(crawled.add, death, "filing")
    crawled.mark_scanned = _dying(crawled.mark_scanned, death, "marking")
    with Services.open(settings) as services:
        worker.run(replace(services, bus=_Deadly(services.bus, death)), threading.Event())


def _dying(work: Callable[..., Any], death: Death, place: str) -> Callable[..., Any]:
    """Dies when the work is done and its transaction is not committed."""

    def working(*given: Any) -> Any:
        done = work(*given)
        death.at(place)
        return done

    return working


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
