"""Services over each database: what the repositories do must not depend on which one it is."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from core.database import Database
from core.services import Services
from core.settings import Settings


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a new database; PostgreSQL's has the schema already."""
    return f"sqlite:///{tmp_path}/test.sqlite" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Of a new database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.sqlite"
        return
    with request.getfixturevalue("postgres_server").database() as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def services(database_url: str, tmp_path: Path) -> Iterator[Services]:
    """The embedded parts and a database of each kind; loopback may be crawled."""
    networks = (ip_network("127.0.0.0/8"),)
    settings = Settings(data=tmp_path / "data", database_url=database_url, secret_key="only for tests!!", allow_networks=networks)
    with Services.open(settings) as opened:
        yield opened
