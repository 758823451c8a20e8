"""kill -9 of the API in a PUT: what was acknowledged is found within a minute, what was not leaves nothing; a retry makes one media."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from sqlalchemy import select

from core import outbox
from core.clock import SystemClock
from core.models import Media, Picture
from core.repo import accounts, media, retention
from core.services import Services
from core.settings import Settings
from filigrane import roles
from filigrane.roles import Options
from matcher import registrar
from matcher.watermark.embed import embed
from scheduler import sweep
from tests.matcher.deaths import Death, match_until_killed
from tests.matcher.pictures import crop, encoded, photo
from tests.matcher.world import World
from tests.processes import start
from tests.servers import free_port

pytestmark = [pytest.mark.story, pytest.mark.timeout(400)]
PLACES: Final = ("blob", "row", "answer")
"""After the objects are stored, after the row is committed, before the answer."""
FINDABLE_SECONDS: Final = 60


def serve_until_killed(settings: Settings, port: int, place: str) -> None:
    """The API, which dies in its first PUT at the place."""
    death = Death(place, 1)
    put_picture, drain = media.put_picture, outbox.drain

    def dying_put(*arguments: Any, **named: Any) -> Any:
        death.at("blob")
        return put_picture(*arguments, **named)

    def dying_drain(services: Services) -> int:
        death.at("row")
        sent = drain(services)
        death.at("answer")
        return sent

    media.put_picture = dying_put
    outbox.drain = dying_drain  # type: ignore[assignment]
    roles.run("api", settings, Options(port=port))


@contextmanager
def serving(settings: Settings, token: str, place: str = "nowhere") -> Iterator[httpx2.Client]:
    port = free_port()
    process = start(serve_until_killed, settings, port, place)
    base = f"http://127.0.0.1:{port}"
    try:
        with httpx2.Client(base_url=base, headers={"Authorization": f"Token {token}"}, timeout=60) as http:
            wait_until(lambda: answers(http))
            yield http
        if place != "nowhere":
            process.join(60)
            assert process.exitcode == -signal.SIGKILL
    finally:
        process.kill()
        process.join()


def answers(http: httpx2.Client) -> bool:
    with suppress(httpx2.TransportError):
        return http.get("/healthz").status_code == 200
    return False


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.1)


def put(http: httpx2.Client, number: int) -> httpx2.Response:
    data = encoded(photo(number), "PNG")
    return http.put(f"/api/v1/media/anna/{number}.png", content=data, headers={"Content-Type": "image/png"})


class Later(SystemClock):
    """Two days on: everything that nobody names may be swept."""

    def now(self) -> datetime:
        return super().now() + timedelta(days=2)


def tell_a_story(settings: Settings) -> None:
    with Services.open(settings) as services:
        world = World(services)
        token = accounts.token_of(settings.secret, world.account)
        matchers = [start(match_until_killed, settings, "nowhere", 1) for _ in range(2)]
        try:
            for number, place in enumerate((*PLACES, "blob")):
                with serving(settings, token, place) as http, pytest.raises(httpx2.TransportError):
                    put(http, number)
            marked, registration = embed(photo(9))
            prepared = registrar.prepare(encoded(photo(9), "PNG"))
            # a process that dies now has told nobody: no message follows
            registrar.register(services, world.account.id, "anna/9.png", prepared, disk_usage=1, watermark=registration)
            with serving(settings, token) as http:
                for number in range(len(PLACES)):  # the last one is never tried again
                    assert put(http, number).status_code in (200, 201)
                acknowledged = time.monotonic()
                world.publish(*(world.found(encoded(photo(n), "JPEG"), pages=(f"http://site.example/{n}",)) for n in range(len(PLACES))))
                world.publish(world.found(encoded(crop(marked, 0, 0, 0.9), "JPEG", quality=85), pages=("http://site.example/9",)))
                for number in range(len(PLACES)):
                    query = encoded(crop(photo(number), 0.05, 0.05, 0.9), "JPEG")
                    assert found_paths(http, query) == [f"anna/{number}.png"]
                wait_until(lambda: len(world.matches()) == len(PLACES) + 1)
                assert time.monotonic() - acknowledged < FINDABLE_SECONDS
            assert [(m.page_url[-1], m.watermarked, [n.path for n in m.media]) for m in world.matches()] == [
                *((str(number), False, [f"anna/{number}.png"]) for number in range(len(PLACES))),
                ("9", True, ["anna/9.png"]),
            ]
            assert_nothing_is_left_over(settings)
        finally:
            for matcher in matchers:
                matcher.kill()
                matcher.join()


def found_paths(http: httpx2.Client, query: bytes) -> list[str]:
    answer = http.post("/api/v1/searches", files={"file": ("query.jpg", query, "image/jpeg")}, data={"category": "private"})
    assert answer.status_code == 200, answer.text
    return [path for match in answer.json()["matches"] for path in paths_of(match)]


def paths_of(match: dict[str, Any]) -> list[str]:
    return [node if isinstance(node, str) else node["path"] for node in match["paths"]]


def assert_nothing_is_left_over(settings: Settings) -> None:
    with Services.open(settings, clock=Later()) as services:
        list(sweep.orphans(services))
        keys = [info.key for prefix in ("pictures/", "registrations/") for info in services.store.list(prefix)]
        with services.database.read() as tx:
            assert retention.unowned(tx, "pictures/", [key for key in keys if key.startswith("pictures/")]) == []
            paths = list(tx.scalars(select(Media.path).where(Media.type == "image").order_by(Media.path)))
            pictures = len(list(tx.scalars(select(Picture.id))))
    assert paths == [*(f"anna/{number}.png" for number in range(len(PLACES))), "anna/9.png"]
    assert pictures == len(paths)
    assert len(keys) == 3 * pictures + 2  # of one that has a key, its registration and the small picture


def test_an_api_that_is_killed_in_a_put(tmp_path: Path) -> None:
    tell_a_story(Settings(data=tmp_path))


@pytest.mark.long
def test_an_api_that_is_killed_in_a_put_on_kafka_postgresql_and_s3(distributed: Settings) -> None:
    """G03: kill -9 of the API in a PUT on Kafka, PostgreSQL and S3: what was acknowledged is found, the rest leaves nothing."""
    tell_a_story(distributed)
