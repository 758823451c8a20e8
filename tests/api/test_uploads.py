"""Group W: pictures that are kept for a while."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.models import Static
from scheduler import sweep
from tests.api.conftest import Api, jpeg
from tests.api.test_transport import check_error

JPEG = {"Content-Type": "image/jpeg"}


def upload(api: Api, data: bytes, kind: str = "image/jpeg") -> dict[str, Any]:
    answer = api.post("/uploads/", headers={"Content-Type": kind}, content=data)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def fetch(api: Api, url: str) -> Any:
    """What is behind a static address, as anybody gets it."""
    assert url.startswith("http://static.test/static/")
    return api.http.get(url.removeprefix("http://static.test"))


def test_300_301_the_same_bytes_come_back(api: Api) -> None:
    body = upload(api, jpeg(1))
    assert set(body) == {"url", "expiry"}
    expiry = datetime.strptime(body["expiry"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert timedelta(hours=23) < expiry - datetime.now(UTC) <= timedelta(hours=24)
    got = fetch(api, body["url"])
    assert (got.content, got.headers["Content-Type"]) == (jpeg(1), "image/jpeg")
    assert upload(api, jpeg(1))["url"] != body["url"]


def test_302_what_is_over_is_gone_and_its_bytes_too(api: Api) -> None:
    url = upload(api, jpeg(2))["url"]
    with api.services.database.write() as tx:
        static = tx.get_one(Static, int(url.rpartition("/")[2].partition(",")[0]))
        static.expires = api.services.clock.now() - timedelta(seconds=1)
        key = static.key
    check_error(fetch(api, url), 404)
    check_error(api.put(f"/media/{api.home}/a.jpg", json={"url": url}), 400)
    assert api.services.store.head(key).length == len(jpeg(2))
    assert sum(sweep.statics(api.services)) >= 1
    assert not list(api.services.store.list(key))


def test_303_own_addresses_are_read_without_leaving_the_server(api: Api) -> None:
    """No host has the name static.test: whoever left the server for it would fail."""
    url = upload(api, jpeg(3))["url"]
    for given in (url, url.replace("http://static.test", "http://testserver")):
        assert api.put(f"/media/{api.home}/b.jpg", json={"url": given}).status_code in (200, 201)


def test_304_uploads_are_in_no_tree_and_no_total(api: Api) -> None:
    before = api.get("/account").json()
    upload(api, jpeg(4))
    assert api.get("/account").json() == before
    assert api.get(f"/media/{api.home}").json()["count"] == 0


@pytest.mark.parametrize(
    ("kind", "content", "status", "code"),
    [
        ("image/jpeg", b"", 411, None),
        ("image/jpeg", b"no picture", 400, "invalid_image"),
        ("text/plain", b"no picture", 415, None),
        ("image/jpeg", b"%PDF-1.7 no picture", 415, None),
    ],
)
def test_what_is_refused(api: Api, kind: str, content: bytes, status: int, code: str | None) -> None:
    check_error(api.post("/uploads/", headers={"Content-Type": kind}, content=content), status, code)
