"""The migrated schema is the one that the models describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, text

from core.database import Database
from core.errors import Unavailable
from core.models import Base


@pytest.fixture
def database(empty_url: str) -> Iterator[Database]:
    opened = Database(empty_url)
    yield opened
    opened.close()


def is_for(dialect: str) -> Callable[..., bool]:
    """Leaves out constraints that the models have for the other database."""
    return lambda item, *_: getattr(item, "_ddl_if", None) is None or item._ddl_if.dialect == dialect


def test_migrations_and_models_do_not_differ(database: Database) -> None:
    database.migrate()
    with database.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "include_object": is_for(connection.dialect.name)}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_ids_are_never_used_twice_after_migration_either(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/migrated.sqlite")
    database.migrate()
    made = create_engine(f"sqlite:///{tmp_path}/made.sqlite")
    Base.metadata.create_all(made)
    sql = text("SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%AUTOINCREMENT%' ORDER BY name")
    with database.engine.connect() as left, made.connect() as right:
        migrated = list(left.scalars(sql))
        assert migrated == list(right.scalars(sql))
        assert "sessions" in migrated
    database.close()
    made.dispose()


def test_migrating_again_changes_nothing(database: Database) -> None:
    database.migrate()
    tables = inspect(database.engine).get_table_names()
    database.migrate()
    assert inspect(database.engine).get_table_names() == tables


def test_a_migration_that_is_cut_leaves_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    upgrade = command.upgrade

    def cut(config: Config, revision: str) -> None:
        upgrade(config, revision)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", cut)
        with pytest.raises(KeyboardInterrupt):
            database.migrate()
    assert inspect(database.engine).get_table_names() == []
    database.migrate()
    assert "sessions" in inspect(database.engine).get_table_names()


def test_a_newer_database_is_refused(database: Database) -> None:
    database.migrate()
    with database.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Unavailable) as caught:
        database.migrate()
    assert caught.value.code == "database_newer"
