"""Static addresses and the store's capabilities (029)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_shim.errors import RangeNotSatisfiable
from api_shim.links import static_hash
from api_shim.routes.static import byte_range
from core.models import Static
from tests.api.conftest import NOW, Api, new_account
from tests.api.test_transport import check_error

DATA = bytes(range(256)) * 10


@pytest.fixture(scope="module")
def shared_api(http: Any, shared_services: Any) -> Api:
    return new_account(http, shared_services)


@pytest.fixture(scope="module")
def address(shared_api: Api) -> str:
    return static(shared_api)


def static(api: Api, **columns: Any) -> str:
    api.services.store.put("queries/static-test", DATA)
    row = Static(**{"key": "queries/static-test", "content_type": "image/jpeg", "filename": "é.jpg", "created": NOW, **columns})
    with api.services.database.write() as tx:
        tx.add(row)
        tx.flush()
    return f"/static/{row.id},{static_hash(api.services.settings.secret, row.id, row.key)}"


def test_029_without_a_token(shared_api: Api, address: str) -> None:
    response = shared_api.http.get(address)
    assert response.content == DATA
    assert response.headers["Content-Type"] == "image/jpeg"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Disposition"] == "inline; filename*=UTF-8''%C3%A9.jpg"
    assert shared_api.http.get(address, headers={"If-None-Match": response.headers["ETag"]}).status_code == 304
    head = shared_api.http.head(address)
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(DATA)))


def test_guessing_gives_404(shared_api: Api, address: str) -> None:
    for wrong in (address[:-1] + ("0" if address[-1] != "0" else "1"), "/static/1", "/static/x,y", "/static/99999999," + "0" * 20):
        check_error(shared_api.http.get(wrong), 404)


def test_expired_ones_are_gone(shared_api: Api) -> None:
    check_error(shared_api.http.get(static(shared_api, expires=NOW - timedelta(days=1000))), 404)
    check_error(shared_api.http.get(static(shared_api, key="queries/never-there")), 404)


def test_ranges(shared_api: Api, address: str) -> None:
    part = shared_api.http.get(address, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, DATA[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(DATA)}"
    assert shared_api.http.get(address, headers={"Range": "bytes=-5"}).content == DATA[-5:]
    assert shared_api.http.get(address, headers={"Range": f"bytes={len(DATA) - 1}-"}).content == DATA[-1:]
    assert shared_api.http.get(address, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status_code == 200
    beyond = shared_api.http.get(address, headers={"Range": f"bytes={len(DATA)}-"})
    check_error(beyond, 416)
    assert beyond.headers["Content-Range"] == f"bytes */{len(DATA)}"


@given(st.text(alphabet="bytes=0123456789-, ", max_size=30), st.integers(0, 10_000))
def test_any_range_is_inside_or_refused(header: str, length: int) -> None:
    try:
        span = byte_range(header, length)
    except RangeNotSatisfiable:
        return
    assert span is None or 0 <= span[0] < span[1] <= length


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 200))
def test_ranges_mean_what_they_say(first: int, last: int, length: int) -> None:
    data = bytes(index % 256 for index in range(length))
    try:
        span = byte_range(f"bytes={first}-{last}", length)
    except RangeNotSatisfiable:
        assert first >= length
        return
    assert span is None if last < first else span is not None and data[slice(*span)] == data[first : last + 1]


def test_the_stores_capabilities(shared_api: Api, address: str) -> None:
    url = shared_api.services.store.url("queries/static-test", timedelta(minutes=1), filename="a.bin").replace("http://static.test", "")
    response = shared_api.http.get(url)
    assert response.content == DATA
    assert response.headers["Content-Disposition"].startswith("attachment")
    check_error(shared_api.http.get(url.replace("a.bin", "b.bin")), 403)
    check_error(shared_api.http.get(url.partition("?")[0]), 400)
    old = shared_api.services.store.url("queries/static-test", timedelta(minutes=-1)).replace("http://static.test", "")
    check_error(shared_api.http.get(old), 403, "url_expired")
