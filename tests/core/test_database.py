"""Transactions: whole or not at all, between threads and processes, and errors that say what to do."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from core.database import Database
from core.database import sqlite as module
from core.errors import Unavailable
from core.models import MatchSurplus, Outbox
from tests.processes import start

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def add_row(database: Database, subject: int) -> None:
    with database.write() as tx:
        tx.add(Outbox(topic="sessions", subject_id=subject, created=NOW))


def count(database: Database) -> int:
    with database.read() as tx:
        return tx.scalar(select(func.count()).select_from(Outbox)) or 0


def test_a_write_is_whole_or_not_at_all(database: Database) -> None:
    def write_and_fail() -> None:
        with database.write() as tx:
            tx.add(Outbox(topic="sessions", subject_id=2, created=NOW))
            tx.flush()
            raise KeyError("in the middle")

    add_row(database, 1)
    with pytest.raises(KeyError):
        write_and_fail()
    assert count(database) == 1


def test_what_was_read_stays_readable(database: Database) -> None:
    add_row(database, 1)
    with database.read() as tx:
        row = tx.scalars(select(Outbox)).one()
    assert (row.subject_id, row.created) == (1, NOW)


def test_what_is_done_in_a_read_is_not_kept(database: Database) -> None:
    with suppress(Unavailable), database.read() as tx:  # PostgreSQL refuses it
        tx.add(Outbox(topic="sessions", subject_id=2, created=NOW))
        tx.flush()
    assert count(database) == 0


def test_a_read_is_one_view(database: Database) -> None:
    with database.read() as tx:
        before = tx.scalar(select(func.count()).select_from(Outbox))
        add_row(database, 1)
        assert tx.scalar(select(func.count()).select_from(Outbox)) == before
    assert count(database) == 1


def test_threads_read_then_write_without_losing_an_update(database: Database) -> None:
    add_row(database, 0)

    def raise_by_one(_: int) -> None:
        with database.write() as tx:
            row = tx.scalars(select(Outbox).with_for_update()).one()
            row.subject_id += 1

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(raise_by_one, range(100)))
    with database.read() as tx:
        assert tx.scalars(select(Outbox.subject_id)).one() == 100


def test_foreign_keys_count(database: Database) -> None:
    def write_orphan() -> None:
        with database.write() as tx:
            tx.add(MatchSurplus(account_id=1, picture_id=1, site="a.example", count=1))

    with pytest.raises(IntegrityError):
        write_orphan()


@SQLITE
def test_commits_are_synced(database: Database) -> None:
    with database.read() as tx:
        assert [tx.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")] == ["wal", 2, 1]


@SQLITE
def test_a_locked_database_is_unavailable(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0)
    impatient = Database(f"sqlite:///{tmp_path}/test.sqlite")
    with database.write(), pytest.raises(Unavailable) as caught:
        add_row(impatient, 1)
    assert caught.value.code == "database_busy"
    add_row(impatient, 1)
    impatient.close()


@SQLITE
def test_a_full_disk_says_so_and_nothing_is_half_written(database: Database) -> None:
    def write_much() -> None:
        with database.write() as tx:
            pages = tx.scalar(text("PRAGMA page_count"))
            tx.execute(text(f"PRAGMA max_page_count={pages}"))  # the disk ends here
            tx.execute(text("CREATE TABLE big AS SELECT randomblob(100000)"))

    with pytest.raises(Unavailable) as caught:
        write_much()
    assert caught.value.code == "database_full"
    assert count(database) == 0


def test_a_folder_that_is_missing_and_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_bytes(b"this is no database at all, but long enough to be read as one" * 100)
    for path in (tmp_path / "nowhere" / "x.sqlite", tmp_path / "text.sqlite"):
        database = Database(f"sqlite:///{path}")
        with pytest.raises(Unavailable) as caught:
            database.migrate()
        assert caught.value.code == "database_unavailable"
        database.close()


def test_a_forked_process_opens_its_own_connections(database: Database) -> None:
    add_row(database, 1)
    pid = os.fork()
    if pid == 0:
        try:
            add_row(database, 2)
        finally:
            os._exit(0 if count(database) == 2 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert count(database) == 2
    if not database.shared:
        with closing(sqlite3.connect(database.url.database or "")) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _open(url: str) -> None:
    database = Database(url)
    database.migrate()
    add_row(database, os.getpid())
    database.close()


def test_processes_may_migrate_a_new_database_at_once(empty_url: str) -> None:
    processes = [start(_open, empty_url) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    database = Database(empty_url)
    assert count(database) == 3
    database.close()


def test_threads_may_migrate_different_databases_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: _open(f"sqlite:///{tmp_path}/{number}.sqlite"), range(4)))
