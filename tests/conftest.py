"""What tests share: the embedded parts, and the real servers, one of each for the whole run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest

from core.services import Services
from core.settings import Settings
from tests.servers import Missing, kafka, postgres, s3

T = TypeVar("T")
missing: dict[str, str] = {}
"""Part -> what to do about it."""


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """The embedded parts in a folder of their own; loopback may be crawled."""
    with Services.open(Settings(data=tmp_path / "data", allow_networks=(ip_network("127.0.0.0/8"),))) as opened:
        yield opened


@pytest.fixture(scope="session")
def kafka_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a Kafka broker: the one that FILIGRANE_TEST_KAFKA names, else one of the run's own. Shared: use names of your own."""
    if named := os.environ.get("FILIGRANE_TEST_KAFKA"):
        yield named
        return
    needed("kafka", kafka.get)
    with kafka.Kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker.bootstrap


def needed(part: str, get: Callable[[], T]) -> T:
    """What `get` gives; a server that is not to be had skips the test, or fails it with REQUIRE_ALL=1."""
    try:
        return get()
    except Missing as error:
        missing[part] = str(error)
        if os.environ.get("REQUIRE_ALL") == "1":
            pytest.fail(f"{part} is missing: {error}", pytrace=False)
        pytest.skip(f"{part} is missing")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Bucket]:
    """A bucket on the S3 of the run. Tests keep apart by prefixes; who kills servers starts one of its own (`s3.kind()`)."""
    with ExitStack() as opened:
        yield needed("s3", lambda: opened.enter_context(s3.shared(tmp_path_factory.mktemp("s3"))))


@pytest.fixture
def s3_settings(s3_server: s3.Bucket, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Values for `Settings`, under a prefix of the test's own; the credentials are in the environment, also of processes that it starts."""
    for name, value in s3_server.credentials().items():
        monkeypatch.setenv(name, value)
    return s3_server.settings(uuid4().hex)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Cluster]:
    """A running PostgreSQL; tests make databases of their own in it."""
    with ExitStack() as stack:
        yield needed("postgres", lambda: stack.enter_context(postgres.cluster()))


@pytest.fixture(scope="session")
def postgres_template(postgres_server: postgres.Cluster) -> Iterator[str]:
    """The name of a database with the newest schema."""
    with postgres_server.migrated() as name:
        yield name


@pytest.fixture(scope="session")
def _postgres_reused(postgres_server: postgres.Cluster, postgres_template: str) -> Iterator[str]:
    with postgres_server.database(postgres_template) as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: postgres.Cluster, _postgres_reused: str) -> str:
    """An empty database with the newest schema."""
    postgres_server.wipe(_postgres_reused.rpartition("/")[2])
    return _postgres_reused


@pytest.fixture
def distributed(tmp_path: Path, kafka_server: str, postgres_url: str, s3_settings: dict[str, str]) -> Settings:
    """Kafka, S3 and PostgreSQL: topics, prefix and database of the test's own; also for processes that it starts."""
    values: dict[str, Any] = {
        "data": tmp_path / "data",
        "database_url": postgres_url,
        "bus_url": f"kafka://{kafka_server}",
        "topic_prefix": f"{uuid4().hex}.",
        "topic_partitions": 4,
        "kafka_options": {"session_timeout_ms": 2000, "heartbeat_interval_ms": 500},  # who was killed is missed soon
        "secret_key": uuid4().hex,
        **s3_settings,
    }
    return Settings(**values)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for part, text in missing.items():
        terminalreporter.write_line(f"SKIPPED EVERYTHING ABOUT {part.upper()}: {text}", red=True, bold=True)
