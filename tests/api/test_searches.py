"""Group S: synchronous searches, with the other end of the bus answering."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event, Thread
from typing import Any

import pytest

from api_shim.routes import searches
from core import events
from core.bus import Outgoing
from core.events import RESULTS, SEARCHES, SearchAnswered, SearchAsked, SearchHit, WebHit
from core.models import Media
from core.services import Services
from tests.api.conftest import NOW, Api, jpeg, new_account
from tests.api.test_transport import check_error

URL = "http://static.test"


@dataclass
class Matcher:
    """Answers every question on the bus with what the test has laid out."""

    services: Services
    hits: tuple[SearchHit, ...] = ()
    web: tuple[WebHit, ...] = ()
    error: tuple[str, str] | None = None
    asked: list[SearchAsked] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)
    silent: bool = False

    def run(self, stop: Event) -> None:
        consumer = self.services.bus.consume(SEARCHES, "matcher")
        while not stop.is_set():
            polled = consumer.poll(0.1)
            for message in polled:
                self.answer(message.value)
            consumer.commit(polled)
        consumer.close()

    def answer(self, value: bytes) -> None:
        question = events.decode(value)
        assert isinstance(question, SearchAsked)
        self.asked.append(question)
        self.data.append(self.services.store.get(question.key))
        code, details = self.error or (None, None)
        if not self.silent:
            answer = SearchAnswered(question.search, self.hits, code, details, self.web)
            self.services.bus.publish([Outgoing(RESULTS, question.reply_to, events.encode(answer))])


@pytest.fixture(scope="module")
def running(shared_services: Services) -> Iterator[Matcher]:
    matcher, stop = Matcher(shared_services), Event()
    thread = Thread(target=matcher.run, args=(stop,))
    thread.start()
    yield matcher
    stop.set()
    thread.join()


@pytest.fixture
def matcher(running: Matcher) -> Matcher:
    running.hits, running.web, running.error, running.silent = (), (), None, False
    running.asked.clear()
    running.data.clear()
    return running


def hit(node: Media, **fields: Any) -> SearchHit:
    assert node.registration is not None
    values = {"picture": node.registration.picture_id, "key_id": "", "verdict": "copy", "score": 12.0, "p_value": None, "payload": None,
              "mirrored": False, "overlap": 1.0, "transform": (1.0, 0, 0, 0, 1, 0, 0, 0, 1)}  # fmt: skip
    return SearchHit(**{**values, **fields})


def test_224_238_a_file_in_a_form(api: Api, matcher: Matcher) -> None:
    node = api.picture("a.jpg", key_id="k1")
    matcher.hits = (hit(node, key_id="k1", p_value=1e-20),)
    response = api.post("/searches/", files={"file": ("x.jpeg", jpeg(), "image/jpeg")})
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["status"] == "complete"
    [match] = body["matches"]
    assert (match["type"], match["watermarked"], match["p_value"]) == ("user", True, 1e-20)
    assert "url" not in match
    assert match["paths"] == [api.get(f"/media/{api.home}/a.jpg").json()]
    assert match["image"]["type"] == "registered"
    [question] = matcher.asked
    assert (question.account, question.transform, question.similar) == (api.account.id, "scale", False)
    assert question.registry_version > 0
    assert question.request_id == response.headers["X-Request-Id"]
    assert matcher.data == [jpeg()]
    assert list(api.services.store.list(f"queries/{question.search}")) == []


def test_225_226_228_229_the_ways_of_sending(api: Api, matcher: Matcher) -> None:
    files = {"file": ("x.jpeg", jpeg(), "image/jpeg")}
    disguised = api.http.build_request("POST", "http://x/", files=files).read()
    for named in (
        {"content": jpeg(), "headers": {"Content-Type": "image/jpeg"}},
        {"content": disguised, "headers": {"Content-Type": "image/jpeg"}},
        {"files": {**files, "sync": ("sync", b"1")}},
        {"files": files, "data": {"similar": "True"}, "params": {"transform": "affine"}},
    ):
        assert api.post("/searches", **named).json() == {"status": "complete", "matches": []}
    assert matcher.data == [jpeg()] * 4
    assert (matcher.asked[-1].similar, matcher.asked[-1].transform) == (True, "affine")


def test_227_a_url(api: Api, matcher: Matcher) -> None:
    image = api.get("/media/" + api.picture("a.jpg").path).json()["image"]
    form = {"Content-Type": "application/json"}
    assert api.post("/searches", data={"url": image}, headers=form).status_code == 200
    assert api.post("/searches", json={"url": image, "sync": True}).status_code == 200
    assert api.post("/searches", files={"url": (None, image)}).status_code == 200
    assert matcher.data == [b"preview.jpg"] * 3


def test_230_to_242_parameters(api: Api, matcher: Matcher) -> None:
    files = {"file": ("x.jpeg", jpeg(), "image/jpeg")}
    check_error(api.post("/searches", files=files, data={"url": URL}), 400)
    check_error(api.post("/searches", json={"name": "x"}), 400)
    check_error(api.post("/searches", content=b""), 411)
    for wrong in ({"transform": "rotate"}, {"category": "all"}, {"similar": "maybe"}, {"sync": "2"}):
        check_error(api.post("/searches", files=files, data=wrong), 400, "invalid_parameters")
    for later in ({"sync": "0"}, {"sync": ""}):
        check_error(api.post("/searches", files=files, data=later), 501)
    check_error(api.post("/searches", content=b"%PDF-1.7 ", headers={"Content-Type": "application/pdf"}), 501)
    check_error(api.post("/searches?sync=1", content=b"%PDF-1.7 ", headers={"Content-Type": "application/pdf"}), 400)
    check_error(api.post("/searches", content=b"hello", headers={"Content-Type": "text/plain"}), 415)
    assert matcher.asked == []


def web_hit(**fields: Any) -> WebHit:
    values = {"sha256": "e" * 64, "md5": "d" * 32, "url": "http://cdn.example/x.jpg", "pages": ("http://site.example/a",), "page_count": 1,
              "first_seen": NOW, "width": 640, "height": 480, "verdict": "copy", "score": 30.0, "mirrored": False, "overlap": 0.5,
              "transform": (1.0, 0, 0, 0, 1, 0, 0, 0, 1)}  # fmt: skip
    return WebHit(**{**values, **fields})


def test_240_crawled_pictures_are_web_images(api: Api, matcher: Matcher) -> None:
    matcher.web = (
        web_hit(pages=("http://site.example/a", "http://site.example/b"), page_count=7, credit="© Jo", last_modified=NOW),
        web_hit(sha256="f" * 64, verdict=None, score=None, overlap=None, transform=None),
    )
    matches = api.post("/searches", files={"file": ("x.jpeg", jpeg(), "image/jpeg")}, data={"category": "web"}).json()["matches"]
    assert [question.category for question in matcher.asked] == ["web"]
    assert [match["image"]["page_url"] for match in matches] == ["http://site.example/a", "http://site.example/b", "http://site.example/a"]
    assert matches[0]["image"] == {
        "type": "web",
        "url": "http://cdn.example/x.jpg",
        "width": 640,
        "height": 480,
        "credit": "© Jo",
        "thumbnail": None,
        "crawl_date": "2026-11-23T12:00:00.000000Z",
        "page_url": "http://site.example/a",
        "md5": "d" * 32,
        "last_modified_date": "2026-11-23T12:00:00.000000Z",
        "page_count": 7,
    }
    assert "last_modified_date" not in matches[2]["image"]
    for match in matches:
        assert (match["type"], match["watermarked"], match["paths"]) == ("user", False, [])
        assert not {"url", "query_url", "query_page_url"} & match.keys()


def test_240_absent_means_both(api: Api, matcher: Matcher) -> None:
    matcher.hits, matcher.web = (hit(api.picture("a.jpg")),), (web_hit(),)
    files = {"file": ("x.jpeg", jpeg(), "image/jpeg")}
    assert [match["image"]["type"] for match in api.post("/searches", files=files).json()["matches"]] == ["registered", "web"]
    api.post("/searches", files=files, params={"category": "private"})
    assert [question.category for question in matcher.asked] == [None, "private"]


def test_a_crawled_picture_tells_what_its_crawl_found_for_this_account_only(api: Api, other: Api, matcher: Matcher) -> None:
    node = api.picture("a.jpg", key_id="k1")
    api.match(node, sha256="e" * 64, key_id="k1", watermarked=True, p_value=1e-20, payload=5)
    matcher.web = (web_hit(),)
    named = {"files": {"file": ("x.jpeg", jpeg(), "image/jpeg")}, "data": {"category": "web"}}
    [own], [foreign] = (who.post("/searches", **named).json()["matches"] for who in (api, other))
    assert (own["watermarked"], own["p_value"], own["payload"]) == (True, 1e-20, 5)
    assert own["paths"] == [api.get(f"/media/{api.home}/a.jpg").json()]
    assert (foreign["watermarked"], foreign["p_value"], foreign["paths"]) == (False, None, [])
    matcher.web = (web_hit(verdict=None),)
    [similar] = api.post("/searches", **named, params={"similar": "1"}).json()["matches"]
    assert (similar["watermarked"], similar["paths"]) == (False, [])


def test_248_what_cannot_be_searched_with(api: Api, matcher: Matcher) -> None:
    check_error(api.post("/searches", json={"url": "http://10.0.0.1/a.jpg"}), 400, "address_refused")
    matcher.error = ("invalid_image", "the bytes are no picture")
    check_error(api.post("/searches", content=b"x", headers={"Content-Type": "image/jpeg"}), 400, "invalid_image")


def test_503_without_an_answer(api: Api, matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "DEADLINE", timedelta(seconds=0.2))
    matcher.silent = True
    response = api.post("/searches", content=jpeg(), headers={"Content-Type": "image/jpeg"})
    check_error(response, 503, "search_timeout")
    assert int(response.headers["Retry-After"]) >= 1


def test_only_own_and_living_media(api: Api, other: Api, matcher: Matcher) -> None:
    foreign, gone = other.picture("a.jpg"), api.picture("b.jpg")
    matcher.hits = (hit(foreign), hit(gone))
    api.delete(f"/media/{api.home}/b.jpg")
    assert api.post("/searches", content=jpeg(), headers={"Content-Type": "image/jpeg"}).json()["matches"] == []


def test_two_processes_get_their_own_answers(http: Any, shared_services: Services, matcher: Matcher) -> None:
    first, second = new_account(http, shared_services), new_account(http, shared_services)
    for api in (first, second, first):
        assert api.post("/searches", content=jpeg(), headers={"Content-Type": "image/jpeg"}).status_code == 200
    assert len({question.reply_to for question in matcher.asked}) == 1
