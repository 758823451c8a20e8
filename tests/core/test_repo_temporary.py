"""What is kept for a while, and pictures that are marked while nobody waits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from sqlalchemy.orm import Session

from core.repo import temporary
from core.services import Services
from tests.core.crawled import NOW, add_account

T = TypeVar("T")
PATIENCE = timedelta(minutes=2)


def do(services: Services, work: Callable[[Session], T]) -> T:
    return services.database.transact(work)


def order(services: Services, account: int, folder: str, hours: int = 24) -> int:
    return do(services, lambda tx: temporary.add_watermarking(tx, account, folder, b"", NOW, NOW + timedelta(hours=hours))).id


def claim(services: Services, minutes: float = 0) -> int | None:
    row = do(services, lambda tx: temporary.claim(tx, NOW + timedelta(minutes=minutes), PATIENCE))
    return row.id if row is not None else None


def waits(services: Services) -> bool:
    with services.database.read() as tx:
        return temporary.waiting(tx, NOW)


def test_each_is_claimed_once_until_its_time_is_over(services: Services) -> None:
    account = add_account(services)
    first, second = order(services, account, "a"), order(services, account, "b")
    assert waits(services)
    assert [claim(services) for _ in range(3)] == [first, second, None]
    assert not waits(services)
    assert claim(services, 1.9) is None
    assert claim(services, 2) == first
    assert do(services, lambda tx: temporary.finish(tx, second))
    assert not do(services, lambda tx: temporary.finish(tx, second, "too late"))
    assert claim(services, 3) is None
    do(services, lambda tx: temporary.again(tx, first, NOW + timedelta(minutes=3)))
    assert claim(services, 3) == first
    with services.database.read() as tx:
        assert [(row.state, row.tries) for row in (temporary.of_folder(tx, f) for f in "ab") if row] == [("pending", 2), ("done", 1)]
        assert temporary.of_folder(tx, "c") is None


def test_many_who_ask_at_once_get_different_ones(services: Services) -> None:
    account = add_account(services)
    ids = {order(services, account, str(number)) for number in range(8)}
    with ThreadPoolExecutor(4) as threads:
        claimed = list(threads.map(lambda _: claim(services), range(8)))
    assert set(claimed) == ids


def test_what_is_over_is_not_done_and_forgotten(services: Services) -> None:
    account = add_account(services)
    over = order(services, account, "a", hours=1)
    order(services, account, "b", hours=3)
    assert claim(services, 120) != over
    with services.database.read() as tx:
        assert list(temporary.expired(tx, NOW + timedelta(hours=2), 10)) == [over]
    do(services, lambda tx: temporary.forget(tx, [over]))
    with services.database.read() as tx:
        assert temporary.of_folder(tx, "a") is None
