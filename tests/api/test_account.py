"""Groups X and Y: the account and its token."""

from __future__ import annotations

from typing import Any

import pytest

from api_shim import auth
from api_shim.auth import Attempts
from api_shim.errors import TooManyRequests
from core.clock import ManualClock
from core.services import Services
from tests.api.conftest import Api, new_account
from tests.api.test_transport import check_error


@pytest.fixture(scope="module")
def jo(http: Any, shared_services: Services) -> Api:
    return new_account(http, shared_services, password="correct horse", email="Jo@Example.org", full_name="Jo Doe")


def test_305_311_the_account(jo: Api) -> None:
    assert jo.get("/account").json() == {
        "username": jo.home, "email": "Jo@Example.org", "full_name": "Jo Doe", "service_plan": "self-hosted", "incidents": None,
        "image_count": 0, "image_quota": None, "disk_usage": 0, "disk_quota": None, "home": jo.home, "matches_not_listed": 0,
    }  # fmt: skip


def test_312_to_316_the_token(jo: Api) -> None:
    url = "/api/v1/account/token"
    for name in (jo.home, "jo@example.org"):
        given = {"username": name, "password": "correct horse"}
        for body in ({"json": given}, {"data": given}, {"data": given, "files": {"x": b""}}):
            assert jo.http.post(url, **body).json() == {"token": jo.token}
    assert jo.http.post(f"{url}/", json={"username": jo.home, "password": "correct horse"}).json() == {"token": jo.token}


def test_315_wrong_credentials_look_the_same(jo: Api) -> None:
    url = "/api/v1/account/token"
    bodies = [check_error(jo.http.post(url, json={"username": name, "password": "wrong"}), 401) for name in (jo.home, "nobody")]
    assert bodies[0] == bodies[1]
    check_error(jo.http.post(f"{url}?username={jo.home}&password=correct%20horse", json={}), 400)
    check_error(jo.http.post(url), 411)
    check_error(jo.http.get(url), 401)


def test_317_brute_force_has_to_wait() -> None:
    clock = ManualClock()
    attempts = Attempts(clock)
    for _ in range(auth.FAILURES_PER_MINUTE):
        attempts.check("a")
        attempts.failed("a")
    with pytest.raises(TooManyRequests) as error:
        attempts.check("a")
    attempts.check("b")
    clock.advance(error.value.retry_after)
    attempts.check("a")
