"""Orders to mark a picture outlive deaths and absences (of whole processes: tests/story); the allowance is one for all processes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api_shim import limits, orders
from api_shim.app import create_app
from api_shim.errors import TimedOut
from api_shim.orders import Order, Orders
from api_shim.workshop import IN_FLIGHT, Workshop
from core.errors import Unavailable
from core.models import Watermarking
from core.repo import accounts, allowances, temporary
from core.services import Services
from core.settings import Settings
from matcher.decode import Decoders, Limits
from matcher.sealing import AccountKeys
from matcher.watermark.keys import new_key
from tests.api.conftest import Api, new_account
from tests.api.test_transport import check_error
from tests.matcher.pictures import encoded, photo

JPEG = {"Content-Type": "image/jpeg"}
LIMIT = "X-RateLimit-Watermarking-Daily"
PICTURE = encoded(photo(1, 480, 360), "JPEG", quality=90)
_numbers = itertools.count(1)


@contextmanager
def opened(folder: Path, **settings: Any) -> Iterator[Services]:
    with Services.open(Settings(data=folder, public_url="http://static.test", **settings)) as services:
        yield services


@contextmanager
def served(services: Services) -> Iterator[TestClient]:
    with TestClient(create_app(services), raise_server_exceptions=False) as http:
        yield http


@contextmanager
def working(services: Services, *, seconds: float = 30.0) -> Iterator[None]:
    with Decoders(1, Limits(seconds=seconds)) as decoders:
        worker = Orders(services, AccountKeys(services), decoders)
        try:
            yield
        finally:
            worker.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def marked_later(api: Api) -> Any:
    return api.post("/watermarking?sync=false", headers=JPEG, content=PICTURE)


def test_050_051_262_one_allowance_for_all_processes_and_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path, watermarking_daily=2) as services, served(services) as one, served(services) as another:
        api = new_account(one, services)
        assert marked_later(api).headers[f"{LIMIT}-Remaining"] == "1"
        assert marked_later(replace(api, http=another)).headers[f"{LIMIT}-Remaining"] == "0"
        check_error(marked_later(api), 429)
    with opened(tmp_path, watermarking_daily=2) as services, served(services) as http:
        check_error(marked_later(replace(api, http=http)), 429)


def order(services: Services) -> int:
    folder, now = f"watermarking/1/{next(_numbers)}", services.clock.now()
    services.store.put(f"{folder}/original", PICTURE)
    with services.database.write() as tx:
        account, _ = accounts.create(tx, services.settings.secret, f"jo{next(_numbers)}.test", now=now)
        taken = allowances.take(tx, account.id, limits.watermarking(services.settings), now).taken
        assert taken is not None
        sealed = orders.sealed(services, folder, Order(new_key(), None, None, False, taken))
        return temporary.add_watermarking(tx, account.id, folder, sealed, now, now + timedelta(hours=1)).id


def row_of(services: Services, number: int) -> Watermarking:
    with services.database.read() as tx:
        return tx.get_one(Watermarking, number)


def due_now(services: Services, number: int, tries: int) -> None:
    with services.database.write() as tx:
        row = tx.get_one(Watermarking, number)
        row.due, row.tries = services.clock.now(), tries


def remaining(services: Services, number: int) -> int:
    with services.database.read() as tx:
        account_id = row_of(services, number).account_id
        return allowances.look(tx, account_id, limits.watermarking(services.settings), services.clock.now()).remaining


def test_an_order_waits_while_something_is_away(tmp_path: Path) -> None:
    """What is away is the secret that it was sealed with."""
    with opened(tmp_path, secret_key="the right secret") as services:
        number = order(services)
        wrong = replace(services, settings=services.settings.model_copy(update={"secret_key": "another secret.."}))
        wrong.settings.__dict__.pop("secret", None)
        with working(wrong):
            until(lambda: row_of(services, number).due > services.clock.now())
        row = row_of(services, number)
        assert (row.state, row.tries) == (temporary.PENDING, 0)
        due_now(services, number, 0)
        with working(services):
            until(lambda: row_of(services, number).state == temporary.DONE)


def test_a_picture_that_ends_decoders_is_given_up(tmp_path: Path) -> None:
    with opened(tmp_path) as services:
        number = order(services)
        with working(services, seconds=0.001):  # whatever it marks takes longer
            for tries in range(1, orders.TRIES):
                until(lambda tries=tries: row_of(services, number).tries == tries)  # type: ignore[misc]
                assert row_of(services, number).state == temporary.PENDING
                due_now(services, number, tries)
            until(lambda: row_of(services, number).state == temporary.FAILED)
        assert remaining(services, number) == services.settings.watermarking_daily


def test_a_picture_that_ended_whole_processes_is_not_touched_again(tmp_path: Path) -> None:
    with opened(tmp_path) as services:
        number = order(services)
        due_now(services, number, orders.TRIES)
        with working(services):
            until(lambda: row_of(services, number).state == temporary.FAILED)
        assert [info.key for info in services.store.list("watermarking/")] == [f"{row_of(services, number).folder}/original"]


def test_who_stops_hands_on(tmp_path: Path) -> None:
    with opened(tmp_path) as services:
        number = order(services)
        with working(services):
            until(lambda: row_of(services, number).tries == 1)
        row = row_of(services, number)
        assert row.state == temporary.DONE or (row.tries, row.due < services.clock.now() + timedelta(seconds=10)) == (0, True)


def wait_for(path: Path) -> None:
    until(path.exists)


def test_so_many_wait_and_no_more(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with Decoders(1) as decoders, ThreadPoolExecutor(IN_FLIGHT) as threads:
        workshop = Workshop(decoders)
        waiting = [threads.submit(until, lambda: not is_busy(workshop, wait_for, go)) for _ in range(IN_FLIGHT)]
        until(lambda: is_full(workshop))
        go.touch()
        for one in waiting:
            one.result()
        until(lambda: not is_busy(workshop, str))
        workshop.close()


def is_full(workshop: Workshop) -> bool:
    try:
        workshop.run(0.001, str)
    except Unavailable:
        return True
    except TimedOut:
        return False
    return False


def is_busy(workshop: Workshop, function: Callable[..., object], *args: object) -> bool:
    try:
        workshop.run(60, function, *args)
    except Unavailable as error:
        return error.code == "watermarking_busy"
    return False


def test_257_what_has_no_time_is_not_begun(tmp_path: Path) -> None:
    with Decoders(1) as decoders:
        workshop = Workshop(decoders)
        for patience in (0, -1):
            with pytest.raises(TimedOut):
                workshop.run(patience, (tmp_path / "begun").touch)
        workshop.run(60, str)
        workshop.close()
    assert not list(tmp_path.iterdir())
