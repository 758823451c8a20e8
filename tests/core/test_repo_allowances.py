"""Rations: never more than the limit in a window, whoever asks; what is given back counts again; windows end when they say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest

from core.repo import allowances
from core.repo.allowances import Left, Ration
from core.services import Services
from tests.core.crawled import NOW, add_account

SHORT = Ration("test", 3, timedelta(seconds=1))
DAY = Ration("test", 3, timedelta(days=1))


def take(services: Services, account: int, ration: Ration = DAY, after: float = 0.0) -> Left:
    now = NOW + timedelta(seconds=after)
    return services.database.transact(partial(allowances.take, account_id=account, ration=ration, now=now))


def look(services: Services, account: int, ration: Ration = DAY, after: float = 0.0) -> Left:
    with services.database.read() as tx:
        return allowances.look(tx, account, ration, NOW + timedelta(seconds=after))


def test_as_many_as_there_are_and_then_none(services: Services) -> None:
    account, other = add_account(services), add_account(services, "other")
    assert look(services, account).remaining == 3
    assert [take(services, account).remaining for _ in range(3)] == [2, 1, 0]
    refused = take(services, account)
    assert (refused.taken, refused.remaining) == (None, 0)
    assert 86_000 < refused.wait <= 86_400
    assert look(services, account).remaining == 0
    assert take(services, other).remaining == 2


def test_what_is_given_back_counts_again(services: Services) -> None:
    account = add_account(services)
    left = take(services, account)
    assert left.taken is not None
    back = partial(allowances.give_back, account_id=account, ration=DAY, taken=left.taken)
    services.database.transact(back)
    assert look(services, account).remaining == 3
    services.database.transact(back)  # there is nothing left to give
    services.database.transact(partial(allowances.give_back, account_id=account, ration=DAY, taken=left.taken - timedelta(days=2)))
    assert look(services, account).remaining == 3


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # a shared database has a clock of its own
def test_a_window_ends_when_it_says(services: Services) -> None:
    account = add_account(services)
    for _ in range(3):
        take(services, account, after=100.0)
    refused = take(services, account, after=100.5)
    assert refused.wait == 86_400
    assert take(services, account, after=100.5 + refused.wait).remaining == 2
    assert look(services, account, after=3 * 86_400).remaining == 3


def test_a_short_window_is_over_after_the_wait(services: Services) -> None:
    account = add_account(services)
    for _ in range(3):
        take(services, account, SHORT)
    assert take(services, account, SHORT).wait == 1


def test_many_at_once_get_no_more_than_there_are(services: Services) -> None:
    account = add_account(services)
    ration = Ration("test", 10, timedelta(days=1))
    with ThreadPoolExecutor(8) as threads:
        lefts = list(threads.map(lambda _: take(services, account, ration), range(25)))
    assert sum(left.taken is not None for left in lefts) == 10
    assert sorted(left.remaining for left in lefts if left.taken is not None) == list(range(10))
