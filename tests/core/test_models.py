"""Tables: dates are UTC or refused, ids are never used twice, replays are stopped by constraints."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import DateTime, Dialect, String, Table, UniqueConstraint, delete, select
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite import dialect as sqlite
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.schema import CreateTable

from core.models import Account, Base, CrawlSession, Line, Outbox, UtcDateTime, Words, storable
from core.services import Services
from tests.core.crawled import NOW, add_account, add_session

DIALECT: Dialect = sqlite()


@given(st.datetimes(timezones=st.timezones()))
def test_dates_are_stored_in_utc_and_read_in_utc(moment: datetime) -> None:
    try:
        wanted = moment.astimezone(UTC)
    except OverflowError:
        return
    bound = UtcDateTime().process_bind_param(moment, DIALECT)
    assert bound == wanted
    assert bound is not None
    assert bound.utcoffset() == timedelta(0)
    assert UtcDateTime().process_result_value(bound.replace(tzinfo=None), DIALECT) == wanted  # SQLite keeps no zone
    assert UtcDateTime().process_result_value(wanted.astimezone(timezone(timedelta(hours=5))), DIALECT) == wanted


def test_no_date_stays_none() -> None:
    assert UtcDateTime().process_bind_param(None, DIALECT) is None
    assert UtcDateTime().process_result_value(None, DIALECT) is None


def test_a_naive_date_is_refused(services: Services) -> None:
    with pytest.raises(StatementError, match="naive"), services.database.write() as tx:
        tx.add(Outbox(topic="sessions", subject_id=1, created=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_every_date_column_keeps_the_zone() -> None:
    dates = [
        column for table in Base.metadata.tables.values() for column in table.columns if isinstance(column.type, DateTime | UtcDateTime)
    ]
    assert dates
    assert all(isinstance(column.type, UtcDateTime) for column in dates)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=()), max_size=30) | st.text("a\0\ud800\udc00\ufeff", max_size=8))
def test_any_text_is_kept_and_found_again(services: Services, text: str) -> None:
    with services.database.write() as tx:
        account = Account(username="x", email=text, home="x", token_hash="x", created=NOW)
        tx.add(account)
        tx.flush()
        tx.add(CrawlSession(account_id=account.id, domain="x", start_urls=[text], ctime=NOW, mtime=NOW, reason=text))
        tx.flush()
        tx.expire_all()
        found = tx.scalars(select(Account).where(Account.email == text)).one()
        session = tx.scalars(select(CrawlSession).where(CrawlSession.reason == text)).one()
        assert (found.email, session.reason, storable(session.start_urls[0])) == (storable(text),) * 3
        tx.rollback()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_text_that_every_database_takes_stays_as_it_is(text: str) -> None:
    assert storable(text) == text


def test_every_text_passes_the_border() -> None:
    texts = [
        column for table in Base.metadata.tables.values() for column in table.columns if isinstance(column.type, String | Words | Line)
    ]
    assert texts
    assert all(isinstance(column.type, Words | Line) for column in texts)


def test_an_id_is_never_used_twice(services: Services) -> None:
    owner = add_account(services)
    first = add_session(services, owner)
    with services.database.write() as tx:
        tx.execute(delete(CrawlSession).where(CrawlSession.id == first.id))
    assert add_session(services, owner).id > first.id


def unique(table: Table) -> set[tuple[str, ...]]:
    return {tuple(column.name for column in each.columns) for each in table.constraints if isinstance(each, UniqueConstraint)}


def test_replays_are_stopped_by_constraints() -> None:
    tables = Base.metadata.tables
    assert ("session_id", "cycle", "kind", "seq") in unique(tables["segments"])
    assert ("session_id", "crawl_cycle") in unique(tables["batches"])
    assert ("picture_id", "key_id") in unique(tables["registrations"])
    assert ("account_id", "picture_id", "key_id", "sha256", "page_url") in unique(tables["matches"])
    for name in ("registrations", "matches"):
        assert not tables[name].c.key_id.nullable  # NULLs are all different to a unique constraint


@pytest.mark.parametrize("table", Base.metadata.sorted_tables, ids=lambda table: str(table.name))
def test_every_table_can_be_made_on_both_databases(table: Table) -> None:
    for dialect in (sqlite(), PGDialect()):  # type: ignore[no-untyped-call]
        assert str(CreateTable(table).compile(dialect=dialect))


def test_a_session_begins_with_the_documented_defaults(services: Services) -> None:
    session = add_session(services, add_account(services))
    with services.database.read() as tx:
        row = tx.scalars(select(CrawlSession)).one()
    assert row.id == session.id
    assert (row.crawl_delay, row.download_delay, row.download_timeout) == (300.0, 1.0, 15.0)
    assert (row.search, row.robots, row.shared, row.state, row.ctime) == (True, True, False, "pending", NOW)


def test_an_account_with_rows_cannot_vanish(services: Services) -> None:
    owner = add_account(services)
    add_session(services, owner)
    with pytest.raises(IntegrityError), services.database.write() as tx:
        tx.execute(delete(Base.metadata.tables["accounts"]))
