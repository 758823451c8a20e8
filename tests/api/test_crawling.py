"""Groups Q and R: sessions and batches."""

from __future__ import annotations

from typing import Any

import pytest

from core import leases
from core.events import SESSIONS
from core.repo import crawls
from core.repo.crawls import ArtifactDraft
from tests.api.conftest import NOW, Api, new_account
from tests.api.test_transport import check_error


def create(api: Api, **fields: Any) -> dict[str, Any]:
    response = api.post("/crawling/sessions", json={"url": "http://example.org/start", **fields})
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


def test_189_192_a_session_with_defaults(api: Api) -> None:
    follower = api.services.bus.follow(SESSIONS, "latest")
    body = create(api)
    assert body["url"] == f"http://testserver/api/v1/crawling/sessions/{body['id']}/"
    assert body["batches"] == f"{body['url']}batches/"
    assert (body["crawl_delay"], body["download_delay"], body["download_timeout"], body["search"]) == (300, 1, 15, True)
    assert (body["state"], body["cycle_count"], body["start_urls"], body["stime"]) == ("pending", 0, ["http://example.org/start"], None)
    assert body == api.get(f"/crawling/sessions/{body['id']}").json() == api.get("/crawling/sessions").json()["results"][0]
    assert [message.key for message in follower.poll(2.0)] == ["example.org"]
    follower.close()


def test_190_json_under_the_form_type_and_a_form(api: Api) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert api.post("/crawling/sessions", content=b'{"url": "http://example.org"}', headers=form).status_code == 201
    response = api.post("/crawling/sessions", data={"url": "http://example.org", "search": "false", "crawl_delay": "60"})
    assert response.status_code == 201
    assert (response.json()["search"], response.json()["crawl_delay"]) == (False, 60)


@pytest.mark.parametrize("url", ["", "example.org", "ftp://example.org", "javascript:alert(1)", "http://", 5, None, "http://ex ample.org"])
def test_191_bad_urls(api: Api, url: Any) -> None:
    check_error(api.post("/crawling/sessions", json={"url": url}), 400)
    check_error(api.post("/crawling/sessions", json={}), 400)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/", "http://169.254.169.254/x", "http://[::1]/", "http://192.168.1.1", "http://0x7f.1.2.3:80/"]
)
def test_private_addresses(api: Api, url: str) -> None:
    if "0x7f" in url:  # loopback in disguise: allowed in this test's settings, as 127.1.2.3
        assert api.post("/crawling/sessions", json={"url": url}).status_code == 201
    else:
        check_error(api.post("/crawling/sessions", json={"url": url}), 400, "address_refused")


@pytest.mark.parametrize(
    "field",
    [
        {"crawl_delay": -1}, {"crawl_delay": "x"}, {"download_delay": -0.1}, {"download_timeout": 0}, {"search": "maybe"},
        {"start_urls": []}, {"start_urls": ["ftp://x"]}, {"start_urls": ["http://example.com/"]}, {"interval": 0}, {"cron": "nonsense"},
        {"max_depth": -1}, {"max_pages": 0}, {"user_agent": "a\r\nb"}, {"state": "running"}, {"crawl_delay": float("1e99")},
    ],
)  # fmt: skip
def test_196_fields_are_checked(api: Api, field: dict[str, Any]) -> None:
    check_error(api.post("/crawling/sessions", json={"url": "http://example.org", **field}), 400)
    assert api.get("/crawling/sessions").json()["count"] == 0


def test_further_fields(api: Api) -> None:
    body = create(
        api, start_urls=["http://www.example.org/b"], crawl_delay=60, download_delay=0.1, interval=3600, max_depth=3, max_pages=100,
        user_agent="me/1.0", robots=False, state="paused",
    )  # fmt: skip
    assert body["start_urls"] == ["http://example.org/start", "http://www.example.org/b"]
    assert (body["crawl_delay"], body["download_delay"], body["interval"], body["state"]) == (60, 0.1, 3600, "paused")
    assert (body["max_depth"], body["max_pages"], body["user_agent"], body["robots"]) == (3, 100, "me/1.0", False)
    for unbuilt in ({"window": "01:00-05:00"}, {"render": True}):
        check_error(api.post("/crawling/sessions", json={"url": "http://example.org", **unbuilt}), 501)
    check_error(api.post("/crawling/sessions", json={"url": "http://example.org", "shared": True}), 403, "operators_only")


def test_operators_share(http: Any, shared_services: Any) -> None:
    assert create(new_account(http, shared_services, operator=True), shared=True)["shared"] is True


def test_patch(api: Api) -> None:
    url = f"/crawling/sessions/{create(api)['id']}"
    assert api.patch(url, json={"state": "paused"}).json()["state"] == "paused"
    changed = api.patch(url, json={"state": "pending", "download_delay": 2.5, "cron": "0 3 * * *"}).json()
    assert (changed["state"], changed["download_delay"], changed["cron"]) == ("pending", 2.5, "0 3 * * *")
    check_error(api.patch(url, json={"interval": 60}), 400)
    assert api.patch(url, json={"cron": None}).json()["cron"] is None
    assert api.patch(url, json={"interval": 60}).json()["interval"] == 60
    check_error(api.patch(url, json={"start_urls": ["http://elsewhere.net/"]}), 400)
    check_error(api.patch(url, json={"crawl_delay": -1}), 400)


def test_206_207_foreign_unknown_deleted(api: Api, other: Api) -> None:
    session_id = create(api)["id"]
    for path in (f"/crawling/sessions/{session_id}", f"/crawling/sessions/{session_id}/batches"):
        check_error(other.get(path), 404)
    check_error(other.delete(f"/crawling/sessions/{session_id}"), 404)
    check_error(other.patch(f"/crawling/sessions/{session_id}", json={"search": False}), 404)
    for wrong in ("999999999", "x", "-1", "1.5"):
        check_error(api.get(f"/crawling/sessions/{wrong}"), 404)
    assert api.delete(f"/crawling/sessions/{session_id}/").status_code == 204
    check_error(api.get(f"/crawling/sessions/{session_id}"), 404)
    assert api.get("/crawling/sessions").json()["count"] == 0


def test_205_filters(api: Api) -> None:
    create(api)
    assert api.get("/crawling/sessions?ctime_gt=2018-08-01").json()["count"] == 1
    assert api.get("/crawling/sessions?ctime_lt=2018-08-01").json()["count"] == 0
    check_error(api.get("/crawling/sessions?ctime=2018-08-01&ctime_lt=2018-08-01"), 400)


def batch_of(api: Api) -> tuple[int, int]:
    """A session with one finished cycle: (session id, batch id)."""
    session_id = create(api, url=f"http://{api.home}/")["id"]
    drafts = []
    for name, count in (
        ("images.log", 3),
        ("images.tar", 2),
        ("videos.log", 0),
        ("documents.log", 0),
        ("pages.log", 5),
        ("pages.warc", 10),
    ):
        key = f"batches/{session_id}/1/1/{name}"
        api.services.store.put(key, name.encode() * 100)
        drafts.append(ArtifactDraft(name, count, key, len(name) * 100, "0" * 64, "application/gzip", name))
    with api.services.database.write() as tx:
        held = leases.acquire(tx, api.home, "worker", 60.0, NOW)
        assert held is not None
        crawls.begin_cycle(tx, held, session_id, NOW)
        batch = crawls.finish_cycle(
            tx, held, session_id, artifacts=drafts, offsets={}, snapshot_key="frontiers/1", state="done", reason=None, now=NOW
        )
    return session_id, batch.id


def test_211_to_223_batches(api: Api, other: Api) -> None:
    session_id, batch_id = batch_of(api)
    batch = api.get(f"/crawling/batches/{batch_id}/").json()
    assert set(batch) == {"url", "id", "ctime", "session", "crawl_cycle", "images", "videos", "documents", "pages", "skipped"}
    assert batch["session"] == f"http://testserver/api/v1/crawling/sessions/{session_id}/"
    assert batch["crawl_cycle"] == api.get(f"/crawling/sessions/{session_id}").json()["cycle_count"] == 1
    assert (batch["images"]["count"], set(batch["images"])) == (3, {"count", "log", "tar"})
    assert (batch["pages"]["count"], set(batch["pages"])) == (5, {"count", "log", "warc"})
    assert batch["videos"] == batch["documents"] == batch["skipped"] == {"count": 0}
    for path in ("/crawling/batches", f"/crawling/sessions/{session_id}/batches"):
        assert api.get(path).json()["results"] == [batch]
        assert api.get(f"{path}?ctime_lt=2018-08-01").json()["results"] == []
    check_error(other.get(f"/crawling/batches/{batch_id}"), 404)
    assert other.get("/crawling/batches").json()["count"] == 0
    log = api.http.get(batch["images"]["log"].replace("http://static.test", ""))
    assert log.content == b"images.log" * 100
    assert "images.log" in log.headers["Content-Disposition"]


def test_208_a_deleted_sessions_batches_are_gone(api: Api) -> None:
    session_id, batch_id = batch_of(api)
    log = api.get(f"/crawling/batches/{batch_id}").json()["images"]["log"].replace("http://static.test", "")
    assert api.http.get(log).status_code == 200
    api.delete(f"/crawling/sessions/{session_id}")
    check_error(api.get(f"/crawling/batches/{batch_id}"), 404)
    check_error(api.http.get(log), 404)
