"""Leases: one holder at a time, fenced by an epoch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from core import leases
from core.database import Database
from core.errors import StaleLease
from core.leases import Held
from core.models import Lease
from core.services import Services
from tests.processes import start

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DOMAIN = "a.example"


def acquire(database: Database, holder: str, seconds: float = 0, *, restart: bool = False) -> Held | None:
    with database.write() as tx:
        return leases.acquire(tx, DOMAIN, holder, 30, NOW + timedelta(seconds=seconds), restart=restart)


def taken(database: Database, holder: str, seconds: float = 0, *, restart: bool = False) -> Held:
    held = acquire(database, holder, seconds, restart=restart)
    assert held is not None
    return held


def grow_older(database: Database, seconds: float) -> None:
    """So much of the lease's time passes, by whatever clock."""
    with database.write() as tx:
        lease = tx.get_one(Lease, DOMAIN)
        lease.expires -= timedelta(seconds=seconds)
        if lease.wanted is not None:
            lease.wanted -= timedelta(seconds=seconds)


def test_who_holds_it_keeps_its_epoch_and_others_wait(services: Services) -> None:
    database = services.database
    first = taken(database, "one")
    assert first.epoch == 1
    assert acquire(database, "two") is None
    grow_older(database, 20)
    again = taken(database, "one")
    assert again.epoch == 1
    assert again.expires >= first.expires
    grow_older(database, 20)
    assert acquire(database, "two") is None
    grow_older(database, 11)
    assert taken(database, "two").epoch == 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_on_one_machine_its_clock_decides(database: Database) -> None:
    assert taken(database, "one").expires == NOW + timedelta(seconds=30)
    assert acquire(database, "two", 29) is None
    assert taken(database, "two", 30).epoch == 2


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_on_many_machines_the_clock_of_the_database_decides(database: Database) -> None:
    held = taken(database, "one", -1e8)
    assert acquire(database, "two", 1e8) is None
    with database.write() as tx:
        assert leases.renew(tx, held, 30, NOW - timedelta(days=1000)).expires > datetime.now(UTC)


def test_a_restarted_worker_takes_its_own_lease_at_once_in_a_new_epoch(services: Services) -> None:
    earlier = taken(services.database, "one")
    assert taken(services.database, "one", 1, restart=True).epoch == 2
    with services.database.write() as tx, pytest.raises(StaleLease):
        leases.check(tx, earlier)


def test_a_released_lease_is_free_at_once(services: Services) -> None:
    held = taken(services.database, "one")
    with services.database.write() as tx:
        leases.release(tx, held)
    later = taken(services.database, "two", 1)
    assert later.epoch == 2
    with services.database.write() as tx:
        leases.release(tx, held)  # not ours any more: left alone
        leases.check(tx, later)
        with pytest.raises(StaleLease):
            leases.renew(tx, held, 30, NOW)
    assert acquire(services.database, "one", 2) is None


def test_an_expired_lease_counts_until_somebody_takes_it(services: Services) -> None:
    held = taken(services.database, "one")
    with services.database.write() as tx:
        leases.check(tx, held)
        assert leases.renew(tx, held, 30, NOW + timedelta(hours=1)).epoch == 1
    assert acquire(services.database, "two", 3601) is None


def ask(database: Database, holder: str) -> Held | None:
    with database.write() as tx:
        return leases.acquire(tx, DOMAIN, holder, 30, NOW, ask=True)


def asked_of(database: Database, holder: str) -> list[str]:
    with database.read() as tx:
        return leases.asked_for(tx, holder, NOW)


def test_who_asks_gets_its_turn_before_the_last_holder(services: Services) -> None:
    database = services.database
    held = taken(database, "one")
    assert acquire(database, "two") is None
    assert asked_of(database, "one") == []
    assert ask(database, "two") is None
    grow_older(database, 8)
    assert (asked_of(database, "one"), asked_of(database, "two")) == ([DOMAIN], [])
    with database.write() as tx:
        leases.release(tx, held)
    assert acquire(database, "one") is None
    assert acquire(database, "one", restart=True) is None
    assert taken(database, "two").epoch == 2
    assert asked_of(database, "two") == []  # the question was answered


def test_a_question_that_is_not_repeated_keeps_nobody_out(services: Services) -> None:
    held = taken(services.database, "one")
    assert ask(services.database, "two") is None
    grow_older(services.database, 11)
    assert asked_of(services.database, "one") == []
    with services.database.write() as tx:
        leases.release(tx, held)
    assert taken(services.database, "one").epoch == 2


def test_the_row_keeps_the_longest_delay_until_its_holder_says_another(services: Services) -> None:
    def take(holder: str, delay: float) -> Held:
        with services.database.write() as tx:
            held = leases.acquire(tx, DOMAIN, holder, 30, NOW, delay=delay)
            assert held is not None
            return held

    assert take("one", 2.0).delay == 2.0
    assert take("one", 1.0).delay == 2.0
    grow_older(services.database, 31)
    assert take("two", 1.0).delay == 2.0
    grow_older(services.database, 31)
    held = take("three", 5.0)
    assert held.delay == 5.0
    with services.database.write() as tx:
        assert leases.renew(tx, held, 30, NOW).delay == 5.0
        assert leases.renew(tx, held, 30, NOW, delay=1.5).delay == 1.5
    grow_older(services.database, 31)
    assert take("four", 1.0).delay == 1.5


def test_check_of_what_never_was(services: Services) -> None:
    with services.database.write() as tx, pytest.raises(StaleLease):
        leases.check(tx, Held(DOMAIN, "one", 1, NOW))


def test_of_racing_threads_one_wins(services: Services) -> None:
    with ThreadPoolExecutor(8) as threads:
        won = [held for held in threads.map(lambda number: acquire(services.database, f"worker-{number}"), range(24)) if held]
    assert [held.epoch for held in won] == [1]


def _race(url: str, folder: Path, number: int, rounds: int) -> None:
    database = Database(url)
    for _ in range(rounds):
        held = acquire(database, f"process-{number}")
        if held is not None:
            with (folder / f"epoch.{held.epoch}").open("x"):  # fails when an epoch is given out twice
                pass
            with database.write() as tx:
                leases.release(tx, held)
    database.close()


def test_processes_never_get_the_same_epoch(database: Database, database_url: str, tmp_path: Path) -> None:
    processes = [start(_race, database_url, tmp_path, number, 30) for number in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    epochs = sorted(int(found.suffix[1:]) for found in tmp_path.glob("epoch.*"))
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) > 1


step = st.tuples(st.sampled_from(["one", "two", "three"]), st.sampled_from(["acquire", "restart", "release", "renew"]), st.integers(0, 40))


@settings(max_examples=25, deadline=None)
@given(st.lists(step, max_size=25))
def test_however_they_come_and_go_one_holds_and_epochs_only_rise(steps: list[tuple[str, str, int]]) -> None:
    database = Database("sqlite://")
    database.migrate()
    known: dict[str, Held] = {}
    now, last = NOW, 0
    with database.write() as tx:
        for holder, what, seconds in steps:
            now += timedelta(seconds=seconds)
            if what in ("acquire", "restart"):
                held = leases.acquire(tx, DOMAIN, holder, 30, now, restart=what == "restart")
                if held:
                    known[holder] = held
            elif what == "release" and holder in known:
                leases.release(tx, known[holder])
            elif holder in known:
                try:
                    known[holder] = leases.renew(tx, known[holder], 30, now)
                except StaleLease:
                    del known[holder]
            valid = [held for held in known.values() if _is_valid(tx, held)]
            assert len(valid) <= 1
            assert all(held.epoch >= last for held in valid)
            last = max([last, *(held.epoch for held in known.values())])
    database.close()


def _is_valid(tx: Session, held: Held) -> bool:
    try:
        leases.check(tx, held)
    except StaleLease:
        return False
    return True
