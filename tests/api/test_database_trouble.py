"""The API over a PostgreSQL in trouble: a few tries, then 503 that says when to come again, never 500; and all well afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import make_url, text
from starlette.testclient import TestClient

from api_shim.app import create_app
from core.models import Account
from core.services import Services
from core.settings import Settings
from tests.api.conftest import Api, new_account
from tests.servers.postgres import Cluster

SESSION = {"url": "http://a.example/"}


@pytest.fixture
def own(postgres_server: Cluster, postgres_template: str) -> Iterator[str]:
    with postgres_server.database(postgres_template) as url:
        yield url


@pytest.fixture
def api(own: str, tmp_path: Path) -> Iterator[Api]:
    url = make_url(own).update_query_dict({"options": "-c lock_timeout=100ms"}).render_as_string(hide_password=False)
    settings = Settings(data=tmp_path / "data", database_url=url, secret_key="only for this test", database_connections=3)
    with Services.open(settings) as services, TestClient(create_app(services), raise_server_exceptions=False) as http:
        yield new_account(http, services)


def make(api: Api, **body: Any) -> httpx2.Response:
    return api.post("/crawling/sessions", json={**SESSION, **body})


def refused(answer: httpx2.Response, code: str) -> bool:
    return (answer.status_code, answer.json()["code"]) == (503, code) and int(answer.headers["Retry-After"]) >= 1


def each_insert(api: Api, body: str) -> None:
    """From now on this runs before each session is inserted; `nextval` counts, whatever is rolled back."""
    with api.services.database.write() as tx:
        tx.execute(text("CREATE SEQUENCE inserts"))
        tx.execute(text(f"CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$"))
        tx.execute(text("CREATE TRIGGER trouble BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION trouble()"))


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_conflicts_are_tried_again_out_of_sight(api: Api, state: str) -> None:
    each_insert(api, f"IF nextval('inserts') < 4 THEN RAISE EXCEPTION 'as if' USING ERRCODE = '{state}'; END IF;")
    assert make(api).status_code == 201


@pytest.mark.parametrize(("state", "code"), [("40001", "database_conflict"), ("53100", "database_full"), ("53200", "database_busy")])
def test_what_does_not_end_is_503(api: Api, state: str, code: str) -> None:
    each_insert(api, f"RAISE EXCEPTION 'as if' USING ERRCODE = '{state}';")
    assert refused(make(api), code)
    assert api.get("/crawling/sessions").json()["count"] == 0


def test_a_lock_that_is_held(api: Api) -> None:
    with api.services.database.write() as tx:
        tx.get_one(Account, api.account.id, with_for_update=True)
        folder = {"Content-Type": "application/x-directory"}
        assert refused(api.put(f"/media/{api.home}/a", headers=folder), "database_busy")
    assert api.put(f"/media/{api.home}/a", headers=folder).status_code == 201


def test_a_database_that_only_reads(api: Api, own: str, postgres_server: Cluster) -> None:
    name = make_url(own).database
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    postgres_server.execute(end, name)
    assert refused(make(api), "database_read_only")
    assert api.get("/crawling/sessions").status_code == 200
    postgres_server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    postgres_server.execute(end, name)
    assert make(api).status_code == 201


def test_no_connection_is_to_be_had(api: Api, own: str, postgres_server: Cluster) -> None:
    name = make_url(own).database
    postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    postgres_server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
    assert refused(make(api), "database_unavailable")
    postgres_server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert make(api).status_code == 201


def test_backends_that_are_ended_at_any_moment(api: Api, own: str, postgres_server: Cluster) -> None:
    """One statement of each request ends its own backend."""
    each_insert(api, "IF nextval('inserts') % 2 = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;")
    answers = [make(api) for _ in range(6)]
    assert all(refused(answer, "database_unavailable") for answer in answers[::2])
    assert [answer.status_code for answer in answers[1::2]] == [201] * 3
    assert api.get("/crawling/sessions").json()["count"] == 3
