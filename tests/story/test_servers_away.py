"""Processes over real servers that are not there yet, hang, or die: 503 that says what is away, never 500, and back by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from core.repo import accounts
from core.services import Services
from core.settings import Settings
from tests.api.conftest import jpeg
from tests.conftest import needed
from tests.servers import Server, free_port, kafka, postgres, s3
from tests.servers.postgres import Postgres

pytestmark = [pytest.mark.story, pytest.mark.timeout(400)]
TIME_OF_A_CHECK = 10.0
PASSWORD = postgres.PASSWORD
GUESSED = "guessed-and-wrong"


@dataclass
class World:
    """Three servers, and what a process is told of them."""

    database: Postgres
    store: s3.S3Server
    bus: kafka.Kafka
    environment: dict[str, str]
    data: Path
    log: Path

    def parts(self) -> list[dict[str, Server]]:
        """What is taken away at a time: the database is in the way of nearly all, so the others go without it."""
        return [{"database": self.database}, {"object store": self.store, "bus": self.bus}]

    def process(self, *arguments: str, patience: float = 60.0, **more: str) -> subprocess.Popen[bytes]:
        """`filigrane ARGUMENTS`, which gives up after `patience` seconds where it would after 60."""
        code = f"import sys; from filigrane import cli, roles; roles.PATIENCE = {patience}; sys.exit(cli.main(sys.argv[1:]))"
        command = [sys.executable, "-c", code, *arguments]
        with self.log.open("w") as log:
            return subprocess.Popen(command, env={**self.environment, **more}, stderr=log)

    def given_up(self, *arguments: str, **more: str) -> str:
        """What a process logs that ends with exit code 2."""
        alone = replace(self, log=self.log.with_name(uuid4().hex))
        assert alone.process(*arguments, patience=5.0, **more).wait(60) == 2, alone.log.read_text()
        return alone.log.read_text()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Nothing runs yet."""
    needed("kafka", kafka.get)
    store = needed("s3", s3.kind)(tmp_path / "s3")
    database = needed("postgres", lambda: Postgres(fsync=False))
    broker = kafka.Kafka(tmp_path / "kafka")
    environment = {
        **os.environ,
        "FILIGRANE_DATA": str(tmp_path / "data"),
        "FILIGRANE_DATABASE_URL": database.cluster.url("postgres"),
        "FILIGRANE_STORE_URL": "s3://pictures/main",
        "FILIGRANE_S3_ENDPOINT_URL": store.endpoint,
        "FILIGRANE_BUS_URL": f"kafka://{broker.bootstrap}",
        "FILIGRANE_SECRET_KEY": "0123456789abcdef" * 2,
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
        "AWS_REGION": "us-east-1",
    }
    with ExitStack() as stack:
        stack.callback(database.remove)
        stack.callback(store.stop)
        stack.callback(broker.stop)
        yield World(database, store, broker, environment, tmp_path / "data", tmp_path / "log")


class Client:
    """Of an API process, with an account's token once there is one."""

    def __init__(self, port: int) -> None:
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0, limits=httpx2.Limits(max_connections=32))
        self.token = "none"

    def call(self, method: str, path: str, **named: Any) -> httpx2.Response:
        return self.http.request(method, path, headers={"Authorization": f"Token {self.token}", **named.pop("headers", {})}, **named)

    def until(self, condition: Callable[[httpx2.Response], bool]) -> httpx2.Response:
        """What /healthz answers as soon as the condition holds of it; each answer has to come in time."""
        until = time.monotonic() + 60
        while True:
            with suppress(httpx2.ConnectError):
                asked = time.monotonic()
                answer = self.http.get("/healthz")
                assert time.monotonic() - asked < TIME_OF_A_CHECK
                if condition(answer):
                    return answer
            assert time.monotonic() < until, answer.text
            time.sleep(0.1)


def is_unwell(parts: Iterable[str]) -> Callable[[httpx2.Response], bool]:
    return lambda answer: answer.status_code == 503 and all(f"the {part}:" in answer.text for part in parts)


def is_well(answer: httpx2.Response) -> bool:
    return answer.status_code == 200


def test_a_start_without_servers_and_each_of_them_away(world: World) -> None:
    port = free_port()
    client = Client(port)
    api = world.process("api", "--port", str(port))
    try:
        starting = client.until(lambda answer: "database_unavailable" in answer.text)
        assert starting.json()["code"] == "starting"
        for answer in (starting, client.call("GET", "/api/v1/account/")):
            assert_away(answer)
        world.database.launch()
        world.store.launch()
        assert "pictures" in client.until(lambda answer: "bucket" in answer.text).text
        world.store.client.create_bucket(Bucket="pictures")
        client.until(lambda answer: "bus_unavailable" in answer.text)
        world.bus.launch()
        client.until(is_well)
        media, session = prepare(world, client)
        for parts in world.parts():
            for server in parts.values():
                server.pause()
            client.until(is_unwell(parts))
            for server in parts.values():
                server.resume()
            client.until(is_well)
            for server in parts.values():
                server.kill()
            client.until(is_unwell(parts))
            answers = everything(client, media, session)
            for answer in answers:
                assert answer.status_code != 500, answer.text
                if answer.status_code == 503:
                    assert_away(answer)
            assert any(answer.status_code == 503 for answer in answers), parts.keys()
            for server in parts.values():
                server.launch()
            client.until(is_well)
        assert client.call("GET", f"/api/v1/media/{media}").status_code == 200
    finally:
        client.http.close()
        api.terminate()
        assert api.wait(40) == 0
    log = world.log.read_text()
    for secret in (PASSWORD, world.store.secret_key, client.token, world.environment["FILIGRANE_SECRET_KEY"]):
        assert secret not in log
    assert '"request.failed"' not in log


def assert_away(answer: httpx2.Response) -> None:
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json()["status_code"] == 503
    assert PASSWORD not in answer.text


def prepare(world: World, client: Client) -> tuple[str, int]:
    """An account with a picture and a session."""
    settings = Settings(
        data=world.data,
        database_url=world.environment["FILIGRANE_DATABASE_URL"],
        secret_key=world.environment["FILIGRANE_SECRET_KEY"],
    )
    with Services.open(settings) as services, services.database.write() as tx:
        account, client.token = accounts.create(tx, settings.secret, "jo", now=services.clock.now())
        home = account.home
    put = client.call("PUT", f"/api/v1/media/{home}/a.jpg", content=jpeg(), headers={"Content-Type": "image/jpeg"})
    assert put.status_code == 201, put.text
    made = client.call("POST", "/api/v1/crawling/sessions/", json={"url": "https://www.example.org/"})
    assert made.status_code == 201, made.text
    return f"{home}/a.jpg", int(made.json()["url"].rstrip("/").rpartition("/")[2])


def everything(client: Client, media: str, session: int) -> list[httpx2.Response]:
    """One request to every address that does something, all at once."""
    picture = {"content": jpeg(1), "headers": {"Content-Type": "image/jpeg"}}
    calls: list[tuple[str, str, dict[str, Any]]] = [
        *(("GET", f"/api/v1{path}", {}) for path in ("/account", "/media", f"/media/{media}", "/matches/web", "/matches/1")),
        *(("GET", f"/api/v1/crawling{path}", {}) for path in ("/sessions", f"/sessions/{session}", "/batches", "/batches/1")),
        ("GET", f"/api/v1/crawling/sessions/{session}/batches", {}),
        ("GET", "/static/1,0123456789abcdef0123", {}),
        ("PUT", f"/api/v1/media/{media}", picture),
        ("PUT", f"/api/v1/media/{media.replace('a.jpg', 'b.jpg')}", picture),
        ("PUT", f"/api/v1/media/{media.replace('a.jpg', 'folder')}", {"headers": {"Content-Type": "application/x-directory"}}),
        ("DELETE", f"/api/v1/media/{media.replace('a.jpg', 'none.jpg')}", {}),
        ("POST", "/api/v1/media/_move", {"json": {"from": f"/media/{media}", "to": f"/media/{media}"}}),
        ("PATCH", f"/api/v1/crawling/sessions/{session}", {"json": {"crawl_delay": 60}}),
        ("POST", "/api/v1/searches/", {"files": {"file": ("q.jpg", jpeg(2), "image/jpeg")}}),
        ("POST", "/api/v1/account/token", {"json": {"username": "jo", "password": "guessed"}}),
    ]
    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(lambda call: client.call(call[0], call[1], **call[2]), calls))


def test_workers_give_up_in_time_and_say_why(world: World) -> None:
    """The database away; credentials that are wrong; a bucket that is not there. All at once: each waits for its time to be over."""
    world.store.launch()
    away = world.environment["FILIGRANE_DATABASE_URL"].replace(str(world.database.port), str(free_port()))
    world.database.launch()
    wrong = [("database_unavailable", role, {"FILIGRANE_DATABASE_URL": away}) for role in ("scheduler", "crawler", "matcher")]
    wrong += [
        (
            "database_refused",
            "scheduler",
            {"FILIGRANE_DATABASE_URL": world.environment["FILIGRANE_DATABASE_URL"].replace(PASSWORD, GUESSED)},
        ),
        ("store_forbidden", "scheduler", {"AWS_SECRET_ACCESS_KEY": GUESSED}),
        ("store_no_bucket", "scheduler", {"FILIGRANE_STORE_URL": "s3://no-such/x"}),
    ]
    with ThreadPoolExecutor(len(wrong)) as threads:
        logs = list(threads.map(lambda each: world.given_up(each[1], **each[2]), wrong))
    for (code, _, _), log in zip(wrong, logs, strict=True):
        assert f"[{code}]" in log.splitlines()[-1]
        assert PASSWORD not in log
        assert GUESSED not in log
