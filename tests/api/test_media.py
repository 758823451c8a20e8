"""Groups H, I, K and L: the media tree."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.bus import Follower
from core.events import MEDIA, MediaChanged, decode
from tests.api.conftest import Api, jpeg, new_account
from tests.api.test_transport import check_error

DIRECTORY = {"Content-Type": "application/x-directory"}
JPEG = {"Content-Type": "image/jpeg"}


def messages(follower: Follower) -> list[MediaChanged]:
    found = [decode(message.value) for message in follower.poll(2.0)]
    return [message for message in found if isinstance(message, MediaChanged)]


def test_085_the_root_shows_the_home(api: Api, other: Api) -> None:
    body = api.get("/media").json()
    assert [child["path"] for child in body["children"]] == [api.home]
    assert body["count"] == 1


def test_086_and_114_another_home_is_403_whether_it_exists_or_not(api: Api, other: Api) -> None:
    other.folder(f"{other.home}/x")
    for home in (other.home, "nobody"):
        for path in (home, f"{home}/x", f"{home}/none"):
            check_error(api.get(f"/media/{path}"), 403, "foreign_home")
            check_error(api.delete(f"/media/{path}"), 403, "foreign_home")
            check_error(api.put(f"/media/{path}/y", headers=DIRECTORY), 403, "foreign_home")
            check_error(api.put(f"/media/{path}/y.jpg", headers=JPEG, content=jpeg()), 403, "foreign_home")


def test_088_089_folders(api: Api) -> None:
    path = f"{api.home}/a/b"
    created = api.put(f"/media/{path}", headers=DIRECTORY)
    assert created.status_code == 201
    body = created.json()
    assert (body["type"], body["path"], body["children"]) == ("folder", path, [])
    assert body["url"] == f"http://testserver/api/v1/media/{path}"
    again = api.put(f"/media/{path}", headers=DIRECTORY, content=b"")
    assert again.status_code == 200
    assert again.json() == body == api.get(f"/media/{path}/").json()
    parent = api.get(f"/media/{api.home}").json()
    assert "children" not in parent["children"][0]
    assert set(parent) == {"url", "path", "created", "type", "count", "next", "previous", "children"}


def test_089_a_folder_over_a_picture(api: Api) -> None:
    api.picture("a.jpg")
    check_error(api.put(f"/media/{api.home}/a.jpg", headers=DIRECTORY), 409)
    check_error(api.put(f"/media/{api.home}/a.jpg/b", headers=DIRECTORY), 409)


def test_091_134_deleting(api: Api) -> None:
    api.picture("a/b/c.jpg")
    deleted = api.delete(f"/media/{api.home}/a")
    assert (deleted.status_code, deleted.content) == (204, b"")
    for path in ("a", "a/b", "a/b/c.jpg"):
        check_error(api.get(f"/media/{api.home}/{path}"), 404)
        check_error(api.delete(f"/media/{api.home}/{path}"), 404)
    account = api.get("/account").json()
    assert (account["image_count"], account["disk_usage"]) == (0, 0)


def test_013_delete_with_and_without_length(api: Api) -> None:
    api.folder(f"{api.home}/a")
    assert api.delete(f"/media/{api.home}/a", headers={"Content-Length": "0"}).status_code == 204


def test_093_the_home_stays(api: Api) -> None:
    check_error(api.delete(f"/media/{api.home}"), 403, "home_directory")
    check_error(api.put(f"/media/{api.home}", headers=JPEG, content=jpeg()), 409)


def test_096_097_099_names_that_are_refused(api: Api) -> None:
    for name in ("a%2Fb", "a//b", "./b".replace("/", "%2F"), "_move", "_matches", "a/_matches/b", "%00", "x" * 256):
        check_error(api.put(f"/media/{api.home}/{name}", headers=DIRECTORY), 400)


@pytest.mark.parametrize("dots", ["%2E", "%2E%2E"])
def test_097_dots(api: Api, dots: str) -> None:
    request = api.http.build_request("PUT", "http://testserver/", headers={"Authorization": f"Token {api.token}", **DIRECTORY})
    request.url = request.url.copy_with(raw_path=f"/api/v1/media/{api.home}/{dots}/x".encode())
    check_error(api.http.send(request), 400, "bad_path")


def test_099_a_folder_named_matches_wins(api: Api) -> None:
    node = api.picture("m/a.jpg")
    api.match(node)
    assert api.get(f"/media/{api.home}/m/matches/web").json()["count"] == 1
    api.folder(f"{api.home}/m/matches/web")
    assert api.get(f"/media/{api.home}/m/matches/web").json()["type"] == "folder"
    assert api.get(f"/media/{api.home}/m/_matches/web").json()["count"] == 1


def test_100_fifty_levels(api: Api) -> None:
    path = "/".join([api.home, *(f"level{number}" for number in range(50))])
    api.folder(path)
    assert api.get(f"/media/{path}").json()["path"] == path


@pytest.mark.parametrize("name", ["a b", "été", "😀", "100%", "a+b", "a#b", "a?b", "a%2Fb", "日本", "a,b;c=d&e", "~'()*!"])
def test_095_any_name_round_trips(api: Api, name: str) -> None:
    path = f"{api.home}/{name}"
    if "%2F" in name:
        path = f"{api.home}/a%2Fb"
    created = api.put(f"/media/{quote(path)}", headers=DIRECTORY).json()
    assert created["path"] == path
    assert api.http.get(created["url"], headers={"Authorization": f"Token {api.token}"}).json() == created


@settings(max_examples=40, deadline=None)
@given(name=st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/"), min_size=1, max_size=40))
def test_095_every_text_is_a_name_or_refused(shared_api: Api, name: str) -> None:
    response = shared_api.put(f"/media/{shared_api.home}/{quote(name, safe='')}", headers=DIRECTORY)
    assert response.status_code in (200, 201, 400)
    if response.status_code != 400:
        again = shared_api.http.get(response.json()["url"], headers={"Authorization": f"Token {shared_api.token}"})
        assert again.json()["path"] == response.json()["path"]


def test_117_132_a_picture_is_registered(api: Api) -> None:
    follower = api.services.bus.follow(MEDIA, "latest")
    response = api.put(f"/media/{api.home}/a/b.jpg", headers={"Content-Type": "Image/JPEG; charset=binary"}, content=jpeg(1))
    assert response.status_code == 201
    body = response.json()
    url = f"http://testserver/api/v1/media/{api.home}/a/b.jpg"
    assert set(body) == {
        "url", "path", "created", "type", "image", "thumbnail", "disk_usage", "web_matches", "press_matches", "user_matches",
    }  # fmt: skip
    assert (body["url"], body["type"], body["web_matches"]) == (url, "image", f"{url}/matches/web/")
    assert body["disk_usage"] == len(jpeg(1))
    assert body == api.get(f"/media/{api.home}/a/b.jpg").json() == api.get(f"/media/{api.home}/a").json()["children"][0]
    preview = api.http.get(body["image"].replace("http://static.test", ""))
    assert preview.headers["Content-Type"] == "image/jpeg"
    assert Image.open(BytesIO(preview.content)).size == (320, 240)
    [message] = [message for message in messages(follower) if message.account == api.account.id]
    assert not message.deleted
    assert len(message.keys) == 1
    account = api.get("/account").json()
    assert (account["image_count"], account["disk_usage"]) == (1, len(jpeg(1)))
    follower.close()


def test_109_replacing_a_picture(api: Api) -> None:
    path = f"/media/{api.home}/a.jpg"
    assert api.put(path, headers=JPEG, content=jpeg(1)).status_code == 201
    assert api.put(path, headers=JPEG, content=jpeg(2)).status_code == 200
    assert api.get("/account").json()["image_count"] == 1
    api.folder(f"{api.home}/folder")
    check_error(api.put(f"/media/{api.home}/folder", headers=JPEG, content=jpeg(1)), 409, "is_folder")


def test_126_png_and_webp(api: Api) -> None:
    for kind in ("PNG", "WEBP"):
        buffer = BytesIO()
        Image.new("RGB", (40, 30), "red").save(buffer, kind)
        response = api.put(f"/media/{api.home}/{kind}", headers={"Content-Type": f"image/{kind.lower()}"}, content=buffer.getvalue())
        assert response.status_code == 201, response.text


def test_127_no_image(api: Api) -> None:
    for data in (b"no image at all", jpeg()[:200]):
        check_error(api.put(f"/media/{api.home}/a.jpg", headers=JPEG, content=data), 400, "invalid_image")
    check_error(api.get(f"/media/{api.home}/a.jpg"), 404)


def test_119_later(api: Api) -> None:
    check_error(api.put(f"/media/{api.home}/a", headers={"Content-Type": "video/mp4"}, content=b"x"), 501)
    check_error(api.put(f"/media/{api.home}/a", headers={"Content-Type": "application/pdf"}, content=b"%PDF"), 415)


@pytest.mark.parametrize(("value", "expected"), [("True", True), ("1", True), ("yes", True), ("false", False), ("No", False), ("0", False)])
def test_129_130_exclusive_header(shared_api: Api, value: str, expected: bool) -> None:
    path = f"/media/{shared_api.home}/{value}.jpg"
    body = shared_api.put(path, headers={**JPEG, "X-Lamark-Exclusive": value}, content=jpeg(3)).json()
    assert body["exclusive"] is expected


def test_130_bad_exclusive_header(api: Api) -> None:
    check_error(api.put(f"/media/{api.home}/a.jpg", headers={**JPEG, "X-Lamark-Exclusive": "maybe"}, content=jpeg()), 400)


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = {"/a.jpg": jpeg(4), "/small": b"x", "/large": b"x" * 5_000_000}.get(self.path)
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Site) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_122_131_remote_pictures(api: Api, site: str) -> None:
    response = api.put(f"/media/{api.home}/a.jpg", json={"url": f"{site}/a.jpg", "exclusive": True})
    assert response.status_code == 201, response.text
    assert response.json()["exclusive"] is True
    check_error(api.put(f"/media/{api.home}/b.jpg", json={"url": f"{site}/large"}), 400, "remote_too_large")
    check_error(api.put(f"/media/{api.home}/b.jpg", json={"url": f"{site}/none"}), 400, "remote_failed")
    check_error(api.put(f"/media/{api.home}/b.jpg", json={"url": f"{site}/small"}), 400, "invalid_image")


def test_121_our_own_static_addresses(api: Api) -> None:
    first = api.put(f"/media/{api.home}/a.jpg", headers=JPEG, content=jpeg(5)).json()
    assert api.put(f"/media/{api.home}/b.jpg", json={"url": first["image"]}).status_code == 201
    check_error(api.put(f"/media/{api.home}/b.jpg", json={"url": first["image"][:-1] + "x"}), 400)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/a.jpg", "http://169.254.169.254/", "ftp://example.org/a", "http://[::1]/", "x", "file:///etc/passwd"]
)
def test_123_addresses_that_are_refused(api: Api, url: str) -> None:
    check_error(api.put(f"/media/{api.home}/a.jpg", json={"url": url}), 400)


def test_131_wrong_fields(api: Api) -> None:
    for body in ({}, {"url": 5}, {"url": ""}, {"url": "http://x", "exclusive": "perhaps"}):
        check_error(api.put(f"/media/{api.home}/a.jpg", json=body), 400, "invalid_parameters")


def test_137_140_moving(api: Api) -> None:
    node = api.picture("a/b.jpg")
    api.match(node)
    base = f"http://testserver/api/v1/media/{api.home}"
    before = api.get(f"/media/{api.home}/a/b.jpg").json()
    moved = api.post("/media/_move", json={"url": f"{base}/a/b.jpg", "to": f"{base}/x/y/c%20d.jpg"})
    assert (moved.status_code, moved.json()) == (200, {"path": f"{api.home}/x/y/c d.jpg"})
    check_error(api.get(f"/media/{api.home}/a/b.jpg"), 404)
    after = api.get(f"/media/{api.home}/x/y/c d.jpg").json()
    assert (after["image"], after["created"]) == (before["image"], before["created"])
    for url, to in (
        (f"{api.home}/x", f"{api.home}/z"),
        (f"{base}/z/", {"url": f"{base}/w/"}),
        (f"{api.home}/w/z", f"{api.home}/folder/"),
    ):
        assert api.post("/media/_move/", json={"url": url, "to": to}).status_code == 200
    path = f"{api.home}/folder/z/y/c d.jpg"
    [match] = api.get("/matches/web").json()["results"]
    assert [shown["path"] for shown in match["paths"]] == [path]
    assert api.get(f"/media/{api.home}/folder/matches/web").json()["count"] == 1


def test_139_143_moves_that_are_refused(api: Api, other: Api) -> None:
    api.picture("a/b.jpg")
    api.folder(f"{api.home}/c")
    home = api.home
    for status, url, to in (
        (400, "garbage", f"{home}/x"),
        (400, "http://elsewhere.example/api/v1/media/x/y", f"{home}/x"),
        (400, f"{home}/a", f"{home}/../x"),
        (400, f"{home}/a", f"{home}/_move"),
        (404, f"{home}/none", f"{home}/x"),
        (409, f"{home}/a", f"{home}/c"),
        (409, f"{home}/a", f"{home}/a/b/c"),
        (409, f"{home}/a", f"{home}/a"),
        (409, f"{home}/c", f"{home}/a/b.jpg/"),
        (403, f"http://testserver/api/v1/media/{home}", f"{home}/c/x"),
        (403, f"{home}/a", f"{other.home}/a"),
    ):
        check_error(api.post("/media/_move", json={"url": url, "to": to}), status)
    check_error(api.post("/media/_move", json={"to": f"{home}/x"}), 400, "invalid_parameters")
    check_error(api.get("/media/_move"), 405)


@pytest.fixture(scope="module")
def shared_api(http: Any, shared_services: Any) -> Api:
    return new_account(http, shared_services)
