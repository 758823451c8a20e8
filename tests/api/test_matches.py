"""Groups M and N: web matches."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.api.conftest import Api
from tests.api.test_transport import check_error


def results(api: Api, path: str) -> list[str]:
    response = api.get(path)
    assert response.status_code == 200, response.text
    return [match["url"].rsplit("/", 2)[1] for match in response.json()["results"]]


def test_152_the_object(api: Api) -> None:
    node = api.picture("a.jpg", key_id="ab12", exclusive=True)
    row = api.match(
        node,
        key_id="ab12",
        watermarked=True,
        p_value=1e-12,
        payload=7,
        transform=[1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        mirrored=False,
        overlap=0.5,
    )
    assert row is not None
    [match] = api.get("/matches/web").json()["results"]
    assert match["url"] == f"http://testserver/api/v1/matches/{row.id}/"
    assert (match["type"], match["watermarked"], match["exclusive"]) == ("web", True, True)
    assert (match["query_url"], match["query_page_url"]) == (row.query_url, row.page_url)
    assert match["image"].keys() == {"type", "url", "width", "height", "credit", "thumbnail"}
    assert (match["image"]["type"], match["image"]["width"], match["image"]["height"], match["image"]["credit"]) == (
        "registered",
        1280,
        853,
        "© Jo",
    )
    assert match["paths"] == [api.get(f"/media/{api.home}/a.jpg").json()]
    assert match["image"]["url"] == match["paths"][0]["image"]
    assert (match["p_value"], match["payload"], match["score"], match["verdict"], match["overlap"]) == (1e-12, 7, 42.0, "copy", 0.5)
    assert match["transform"][0] == 1.0
    assert match["created"].endswith("Z")
    assert len(match["created"]) == len("2018-07-20T15:16:07.777535Z")


def test_156_157_one_match(api: Api, other: Api) -> None:
    row = api.match(api.picture("a.jpg"))
    assert row is not None
    one = api.get(f"/matches/{row.id}/").json()
    assert one == api.get(f"/matches/web/{row.id}").json() == api.get("/matches/web").json()["results"][0]
    for path in (f"/matches/press/{row.id}", "/matches/999999999", "/matches/x", "/matches/²"):
        check_error(api.get(path), 404)
    check_error(other.get(f"/matches/{row.id}"), 404)
    assert results(other, "/matches/web") == []


def test_153_exclusive_is_that_of_the_record(api: Api) -> None:
    node = api.picture("a.jpg")
    api.match(node)
    assert "exclusive" not in api.get("/matches/web").json()["results"][0]
    assert len(results(api, "/matches/web?exclusive=true")) == 0
    api.match(api.picture("b.jpg", exclusive=True))
    assert len(results(api, "/matches/web?exclusive=true")) == 1
    assert len(results(api, "/matches/web?exclusive=false")) == 0


def test_158_watermarked(api: Api) -> None:
    node = api.picture("a.jpg")
    plain = api.match(node)
    marked = api.match(node, watermarked=True)
    assert plain is not None
    assert marked is not None
    assert results(api, "/matches/web?watermarked=True") == [str(marked.id)]
    assert results(api, "/matches/web?watermarked=0") == [str(plain.id)]
    assert results(api, "/matches/web?blacklist=true") == [str(marked.id), str(plain.id)]
    check_error(api.get("/matches/web?blacklist=x"), 400)


def test_161_164_dates(api: Api) -> None:
    node = api.picture("a.jpg")
    moments = [datetime(2018, 8, day, 12, 45, tzinfo=UTC) for day in (1, 2, 3)]
    ids = [str(row.id) for row in [api.match(node, created=moment) for moment in moments] if row is not None]
    assert results(api, "/matches/web?date=2018-08-02") == [ids[1]]
    assert results(api, "/matches/web?date=2018-08-02T12:45:00Z") == [ids[1]]
    assert results(api, "/matches/web?date_lt=2018-08-02") == [ids[0]]
    assert results(api, "/matches/web?date_lte=2018-08-02") == [ids[1], ids[0]]
    assert results(api, "/matches/web?date_gt=2018-08-02") == [ids[2]]
    assert results(api, "/matches/web?date_gte=2018-08-02") == [ids[2], ids[1]]
    assert results(api, "/matches/web?date_gt=2018-08-01&date_lte=2018-08-02T12%3A45:00Z") == [ids[1]]
    assert results(api, "/matches/web?date_gte=2018-08-02T14:45:00+02:00") == [ids[2], ids[1]]


def test_170_171_of_a_media_and_of_a_folder(api: Api) -> None:
    first, second = api.picture("a/one.jpg"), api.picture("a/b/two.jpg")
    ids = [str(row.id) for row in (api.match(first), api.match(second)) if row is not None]
    for kind in ("matches", "_matches"):
        assert results(api, f"/media/{api.home}/a/one.jpg/{kind}/web/") == [ids[0]]
        assert results(api, f"/media/{api.home}/a/{kind}/web") == [ids[1], ids[0]]
    assert results(api, f"/media/{api.home}/a/b/matches/web?watermarked=true") == []
    assert (
        api.get(f"/media/{api.home}/a/matches/web?page_size=1")
        .json()["next"]
        .startswith(f"http://testserver/api/v1/media/{api.home}/a/matches/web/?")
    )
    check_error(api.get(f"/media/{api.home}/none/matches/web"), 404)
    for kind in ("press", "user"):
        check_error(api.get(f"/media/{api.home}/a/matches/{kind}"), 501)


def test_136_matches_of_deleted_media_stay(api: Api) -> None:
    node = api.picture("a.jpg")
    api.match(node)
    api.delete(f"/media/{api.home}/a.jpg")
    [match] = api.get("/matches/web").json()["results"]
    assert match["paths"] == []
    assert api.http.get(match["image"]["url"].replace("http://static.test", "")).status_code == 200


def test_113_two_media_of_one_picture(api: Api) -> None:
    api.picture("a.jpg", pixels="same")
    api.match(api.picture("b.jpg", pixels="same"))
    [match] = api.get("/matches/web").json()["results"]
    assert [node["path"] for node in match["paths"]] == [f"{api.home}/a.jpg", f"{api.home}/b.jpg"]


@pytest.mark.parametrize("path", ["/matches/web?date=x", "/matches/web?date=2018-08-02&date_gt=2018-08-01", "/matches/web?watermarked=2"])
def test_166_bad_parameters(api: Api, path: str) -> None:
    check_error(api.get(path), 400, "invalid_parameters")
    assert api.get("/matches/web?unknown=x").status_code == 200
