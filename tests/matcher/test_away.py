"""A part that is away in the middle of the work: the matcher waits, not busily, goes on by itself, and has lost and doubled nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from core.errors import Unavailable
from core.services import Services
from core.shards import GROUP
from matcher import worker
from tests.matcher.pictures import encoded, photo
from tests.matcher.world import World

PATIENCE = 120
REFUSED = 4
"""Calls, before the part comes back."""


class Away:
    """Passes calls on, until its part is away: then each is refused, like those of what it has given out."""

    def __init__(self, part: Any, gone: threading.Event, refused: list[float]) -> None:
        self._part, self._gone, self._refused = part, gone, refused

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        return self._passing(found, name) if callable(found) and name not in ("close", "missed") else found

    def _passing(self, call: Any, name: str) -> Any:
        def passing(*arguments: Any, **named: Any) -> Any:
            if self._gone.is_set():
                self._refused.append(time.monotonic())
                raise Unavailable("away")
            given = call(*arguments, **named)
            return Away(given, self._gone, self._refused) if name in ("consume", "follow") else given

        return passing


@pytest.mark.parametrize("part", ["store", "database", "bus"])
def test_it_waits_and_goes_on(services: Services, part: str) -> None:
    world = World(services)
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    pictures = [encoded(photo(1), "JPEG", quality=quality) for quality in range(40, 52)]
    gone, refused = threading.Event(), list[float]()
    parts: dict[str, Any] = {part: Away(getattr(services, part), gone, refused)}
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(replace(services, **parts), stop))
    thread.start()
    try:
        world.publish(*(world.found(data, pages=(f"http://site.example/{n}",)) for n, data in enumerate(pictures[:4])))
        wait(lambda: services.bus.lag("images", GROUP) < 4)
        gone.set()
        world.publish(*(world.found(data, pages=(f"http://site.example/{n}",)) for n, data in enumerate(pictures[4:], 4)))
        wait(lambda: len(refused) >= REFUSED)
        first, last, calls = refused[0], time.monotonic(), len(refused)
        gone.clear()
        wait(lambda: services.bus.lag("images", GROUP) == 0)
        assert thread.is_alive()
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert calls <= 10 * (1 + last - first), "it does not ask again and again without a pause"
    assert Counter(match.page_url for match in world.matches()) == Counter(f"http://site.example/{n}" for n in range(len(pictures)))


def wait(condition: Any) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)
