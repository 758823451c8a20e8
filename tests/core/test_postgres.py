"""PostgreSQL in trouble: bounded waits, stable codes, texts that say what to do, and no secret in any of them."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import event, make_url, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from core import database as module
from core.database import Database
from core.database import postgres as backend
from core.errors import Unavailable
from core.models import Account, Outbox
from core.repo import accounts
from tests.core.crawled import NOW
from tests.core.test_database import add_row, count
from tests.servers import free_port
from tests.servers.postgres import PASSWORD, Cluster, Postgres


@contextmanager
def opened(url: str, options: str = "", connections: int = 3) -> Iterator[Database]:
    query = {"options": options} if options else {}
    database = Database(make_url(url).update_query_dict(query), connections=connections)
    try:
        yield database
    finally:
        database.close()


@pytest.fixture
def own(postgres_server: Cluster, postgres_template: str) -> Iterator[str]:
    """The URL of a database whose settings a test may change."""
    with postgres_server.database(postgres_template) as url:
        yield url


def code_of(database: Database, subject: int = 1) -> str:
    with pytest.raises(Unavailable) as caught:
        add_row(database, subject)
    assert caught.value.retry_after >= 1
    return caught.value.code


def test_an_absent_server_is_said_to_be_absent() -> None:
    with opened(f"postgresql+psycopg://jo:{PASSWORD}@127.0.0.1:{free_port()}/x") as database, pytest.raises(Unavailable) as caught:
        database.migrate()
    assert caught.value.code == "database_unavailable"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"password": "not-the-secret"}, "user and password"),
        ({"username": "nobody"}, "user and password"),
        ({"database": "nowhere"}, "create"),
    ],
)
def test_wrong_credentials_say_what_to_do_and_tell_nobody_the_secret(postgres_server: Cluster, changed: dict[str, str], words: str) -> None:
    admin = postgres_server.admin
    url = admin.set(password=changed.get("password"), username=changed.get("username"), database=changed.get("database"))
    with opened(url.render_as_string(hide_password=False)) as database, capture_logs() as logs, pytest.raises(Unavailable) as caught:
        database.migrate()
    assert caught.value.code == "database_refused"
    assert words in caught.value.details
    told = "".join(traceback.format_exception(caught.value)) + str(logs) + caught.value.details
    assert str(url.password) not in told


def test_rows_are_never_told_with_an_error(postgres_url: str) -> None:
    """Neither by the server's details, which quote what clashes, nor by the statement's parameters."""
    row = {"username": "x", "home": "x", "token_hash": "hash-of-a-token", "created": NOW}
    with opened(postgres_url) as database:
        for names in ({}, {"username": "y", "home": "y"}, {"username": None}):
            with pytest.raises(IntegrityError) as caught, database.write() as tx:
                tx.add_all([Account(**row), Account(**{**row, **names})])
            told = "".join(traceback.format_exception(caught.value))
            assert "constraint" in told
            assert "hash-of-a-token" not in told


def test_connections_that_die_before_they_are_used_are_an_outage(postgres_url: str) -> None:
    """As a pooler gives them out whose server is away."""
    with opened(postgres_url) as database:
        event.listen(database.engine, "connect", lambda raw, _: raw.pgconn.finish())
        assert code_of(database) == "database_unavailable"


STATES = [
    ("53100", "database_full"),
    ("53200", "database_busy"),
    ("53300", "database_busy"),
    ("55P03", "database_busy"),
    ("57014", "database_busy"),
    ("40001", "database_conflict"),
    ("40P01", "database_conflict"),
    ("25006", "database_read_only"),
    ("57P01", "database_unavailable"),
    ("57P03", "database_unavailable"),
    ("58030", "database_unavailable"),
    ("XX001", "database_unavailable"),
    ("42501", "database_refused"),
]


@pytest.mark.parametrize(("state", "code"), STATES)
def test_what_the_server_says_has_a_code(postgres_url: str, state: str, code: str) -> None:
    with opened(postgres_url) as database, pytest.raises(Unavailable) as caught, database.write() as tx:
        tx.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'as if' USING ERRCODE = '{state}'; END $$"))
    assert caught.value.code == code


def test_a_mistake_of_ours_is_no_outage(postgres_url: str) -> None:
    with opened(postgres_url) as database, pytest.raises(Exception, match="nonsense") as caught, database.write() as tx:
        tx.execute(text("nonsense"))
    assert not isinstance(caught.value, Unavailable)


def test_more_connections_than_the_server_takes(postgres_server: Cluster, own: str) -> None:
    url = make_url(own)
    role = f"limited_{url.database}"
    postgres_server.execute(
        f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}' CONNECTION LIMIT 1 IN ROLE pg_write_all_data, pg_read_all_data"
    )
    limited = url.set(username=role).render_as_string(hide_password=False)
    try:
        with opened(limited) as first, opened(limited) as second:
            with first.read() as tx:
                tx.execute(text("SELECT 1"))
                assert code_of(second) == "database_busy"
            first.close()
            until = time.monotonic() + 10
            while True:  # the server takes a moment to see it go
                try:
                    add_row(second, 1)
                    break
                except Unavailable:
                    assert time.monotonic() < until
        with opened(own) as database:
            assert count(database) == 1
    finally:
        postgres_server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", role)
        postgres_server.execute(f"DROP ROLE {role}")


def test_more_threads_than_connections(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(postgres_url, connections=2) as database, ThreadPoolExecutor(12) as threads:
        list(threads.map(lambda number: add_row(database, number), range(60)))  # they wait for each other
        assert count(database) == 60
    monkeypatch.setattr(backend, "POOL_SECONDS", 0.1)
    with opened(postgres_url, connections=1) as database:
        with database.read():
            assert code_of(database) == "database_busy"
        add_row(database, 1)


def test_a_lock_that_is_held_for_long(postgres_url: str) -> None:
    with opened(postgres_url, "-c lock_timeout=100ms") as database:
        add_row(database, 1)
        with database.write() as tx:
            tx.scalars(select(Outbox).with_for_update()).one()
            with pytest.raises(Unavailable) as caught, database.write() as other:
                other.scalars(select(Outbox).with_for_update()).one()
        assert caught.value.code == "database_busy"
        with database.write() as tx:
            tx.scalars(select(Outbox).with_for_update()).one()


def test_a_statement_that_takes_long(postgres_url: str) -> None:
    with opened(postgres_url, "-c statement_timeout=100ms") as database, pytest.raises(Unavailable) as caught, database.read() as tx:
        tx.execute(text("SELECT pg_sleep(60)"))
    assert caught.value.code == "database_busy"


def test_a_standby_is_read_and_written_again_after_the_failover(postgres_server: Cluster, own: str) -> None:
    name = make_url(own).database
    with opened(own) as database:
        add_row(database, 1)
        postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        postgres_server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
        assert code_of(database) == "database_read_only"
        assert count(database) == 1
        postgres_server.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        assert code_of(database) == "database_read_only"  # the connection that read is still the old server's
        add_row(database, 2)


def test_connections_that_the_server_ended(postgres_server: Cluster, own: str) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    name = make_url(own).database

    def write_and_be_cut() -> None:
        with database.write() as tx:
            tx.add(Outbox(topic="sessions", subject_id=2, created=NOW))
            tx.flush()
            postgres_server.execute(end, name)

    with opened(own) as database:
        add_row(database, 1)
        postgres_server.execute(end, name)
        add_row(database, 1)  # an idle one is looked at before it is used
        with pytest.raises(Unavailable) as caught:
            write_and_be_cut()
        assert caught.value.code == "database_unavailable"
        assert count(database) == 2


# --- transactions that come between each other


def test_a_deadlock_is_tried_again(postgres_url: str) -> None:
    both = threading.Barrier(2)

    def raise_both(order: list[int]) -> int:
        tries = 0

        def work(tx: Session) -> None:
            nonlocal tries
            tries += 1
            for place, subject in enumerate(order):
                row = tx.scalars(select(Outbox).where(Outbox.topic == f"t{subject}").with_for_update()).one()
                row.subject_id += 1
                tx.flush()
                if place == 0 and tries == 1:
                    both.wait(30)

        database.transact(work)
        return tries

    with opened(postgres_url, "-c deadlock_timeout=50ms") as database:
        with database.write() as tx:
            tx.add_all(Outbox(topic=f"t{number}", subject_id=0, created=NOW) for number in range(2))
        with ThreadPoolExecutor(2) as threads:
            tries = list(threads.map(raise_both, [[0, 1], [1, 0]]))
        assert sorted(tries) == [1, 2]
        with database.read() as tx:
            assert list(tx.scalars(select(Outbox.subject_id))) == [2, 2]


def test_the_tries_are_bounded(postgres_url: str) -> None:
    tries = []

    def work(tx: Session) -> None:
        tries.append(tx)
        tx.execute(text("DO $$ BEGIN RAISE EXCEPTION 'as if' USING ERRCODE = '40001'; END $$"))

    with opened(postgres_url) as database, pytest.raises(Unavailable) as caught:
        database.transact(work)
    assert (len(tries), caught.value.code) == (module.TRIES, "database_conflict")


def test_what_cannot_succeed_is_not_tried_again(postgres_url: str) -> None:
    tries = []

    def work(tx: Session) -> None:
        tries.append(tx)
        raise Unavailable("the store is away", code="store_unavailable")

    with opened(postgres_url) as database, pytest.raises(Unavailable):
        database.transact(work)
    assert len(tries) == 1


def test_of_many_who_make_the_local_account_all_get_the_same(postgres_url: str) -> None:
    start = threading.Barrier(4)

    def make(_: int) -> tuple[int, str]:
        start.wait(30)
        account, token = database.transact(lambda tx: accounts.ensure_local(tx, b"secret", NOW))
        return account.id, token

    with opened(postgres_url, connections=4) as database, ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(make, range(4)))) == 1


def test_the_local_account_that_somebody_makes_after_our_look(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    look = accounts._named

    def look_and_be_late(tx: Session, username: str) -> Account | None:
        monkeypatch.setattr(accounts, "_named", look)
        found = look(tx, username)
        database.transact(make)
        return found

    def make(tx: Session) -> tuple[int, str]:
        account, token = accounts.ensure_local(tx, b"secret", NOW)
        return account.id, token

    with opened(postgres_url, connections=4) as database:
        monkeypatch.setattr(accounts, "_named", look_and_be_late)
        assert database.transact(make) == database.transact(make)


# --- a server that stops


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres(fsync=False) as running:
        yield running


def test_a_server_that_freezes_holds_nobody_up(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend.Patient, "patience", 0.5)
    monkeypatch.setitem(backend._CONNECTING, "connect_timeout", "2")

    def begin_and_freeze(database: Database) -> None:
        with database.write() as tx:
            server.pause()
            tx.execute(text("SELECT 1"))

    with server.cluster.database() as url, opened(url, connections=2) as database:
        database.migrate()
        add_row(database, 1)
        try:
            with pytest.raises(Unavailable) as caught:
                begin_and_freeze(database)
            assert caught.value.code == "database_unavailable"
            assert code_of(database) == "database_unavailable"  # and where none has begun yet
        finally:
            server.resume()
        add_row(database, 2)
        assert count(database) == 2


def test_a_server_that_is_gone_for_a_while(server: Postgres) -> None:
    with server.cluster.database() as url, opened(url) as database:
        database.migrate()
        add_row(database, 1)
        server.kill()
        assert code_of(database) == "database_unavailable"
        server.launch()
        add_row(database, 2)
        assert count(database) == 2
