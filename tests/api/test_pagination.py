"""Group D: collections in chunks."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.conftest import Api, new_account
from tests.api.test_transport import check_error


def walk(api: Api, path: str, name: str = "results", direction: str = "next") -> list[Any]:
    """All objects, and what has to hold for every page on the way."""
    found: list[Any] = []
    url: str | None = path
    while url is not None:
        body = api.get(url.removeprefix("http://testserver/api/v1")).json()
        assert isinstance(body["count"], int)
        found += body[name]
        url = body[direction]
        assert url is None or url.startswith("http://testserver/api/v1/")
    return found


def test_036_every_object_once_in_both_directions(api: Api) -> None:
    for number in range(10):
        api.folder(f"{api.home}/f{number}")
    first = api.get(f"/media/{api.home}?page_size=3").json()
    assert first["previous"] is None
    assert first["count"] == 10
    names = [child["path"] for child in walk(api, f"/media/{api.home}?page_size=3", "children")]
    assert names == [f"{api.home}/f{number}" for number in range(10)]
    last = f"/media/{api.home}?page_size=3"
    while (following := api.get(last).json()["next"]) is not None:
        last = following.removeprefix("http://testserver/api/v1")
    back = api.get(last).json()
    assert [child["path"] for child in back["children"]] == [f"{api.home}/f9"]
    pages = [back["children"]]
    while back["previous"] is not None:
        back = api.get(back["previous"].removeprefix("http://testserver/api/v1")).json()
        pages.insert(0, back["children"])
    assert [child["path"] for page in pages for child in page] == names


def test_037_objects_that_come_and_go(api: Api) -> None:
    node = api.picture("a.jpg")
    rows = [api.match(node) for _ in range(6)]
    first = api.get("/matches/web?page_size=3").json()
    api.match(node)
    gone = rows[1]
    assert gone is not None
    seen = [match["url"] for match in first["results"]]
    with api.services.database.write() as tx:
        tx.delete(tx.merge(gone))
    rest = [match["url"] for match in walk(api, first["next"].removeprefix("http://testserver/api/v1"))]
    assert seen + rest == [f"http://testserver/api/v1/matches/{row.id}/" for row in reversed(rows) if row is not None and row is not gone]


def test_038_links_keep_filters_and_the_clients_host(api: Api) -> None:
    node = api.picture("a.jpg")
    for _ in range(3):
        api.match(node)
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example:8443"}
    body = api.get("/matches/web/?page_size=1&watermarked=false&date_gt=2018-08-01", headers=headers).json()
    parts = urlsplit(body["next"])
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "shop.example:8443", "/api/v1/matches/web/")
    assert {name: value[0] for name, value in parse_qs(parts.query).items() if name != "cursor"} == {
        "page_size": "1", "watermarked": "false", "date_gt": "2018-08-01",
    }  # fmt: skip
    assert body["results"][0]["url"].startswith("https://shop.example:8443/")


def test_038_a_forged_host_is_not_repeated(api: Api) -> None:
    body = api.get(f"/media/{api.home}", headers={"X-Forwarded-Host": 'evil"><script>', "X-Forwarded-Proto": "javascript"}).json()
    assert body["url"] == f"http://static.test/api/v1/media/{api.home}"


@settings(max_examples=60)
@given(cursor=st.one_of(st.text(max_size=60), st.binary(max_size=40).map(lambda data: data.hex())))
def test_039_any_damaged_cursor_is_400(shared_api: Api, cursor: str) -> None:
    check_error(shared_api.get("/matches/web", params={"cursor": cursor}), 400, "invalid_cursor")


def test_039_a_cursor_of_another_collection(api: Api) -> None:
    for number in range(2):
        api.folder(f"{api.home}/f{number}")
    cursor = parse_qs(urlsplit(api.get(f"/media/{api.home}?page_size=1").json()["next"]).query)["cursor"][0]
    check_error(api.get("/matches/web", params={"cursor": cursor}), 400, "invalid_cursor")


@pytest.mark.parametrize("size", ["0", "-1", "x", "1.5", "", "²"])
def test_040_bad_page_sizes(api: Api, size: str) -> None:
    check_error(api.get("/matches/web", params={"page_size": size}), 400)


def test_040_page_size(api: Api) -> None:
    for number in range(101):
        api.folder(f"{api.home}/f{number}")
    assert len(api.get(f"/media/{api.home}").json()["children"]) == 100
    assert len(api.get(f"/media/{api.home}?page_size=100000000").json()["children"]) == 101


def test_042_empty_collections(api: Api) -> None:
    for path in ("/matches/web", "/crawling/sessions", "/crawling/batches"):
        response = api.get(path)
        assert response.status_code == 200
        assert response.json() == {"count": 0, "next": None, "previous": None, "results": []}


@pytest.fixture(scope="module")
def shared_api(http: Any, shared_services: Any) -> Api:
    return new_account(http, shared_services)
