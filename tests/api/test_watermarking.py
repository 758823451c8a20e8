"""Groups T and U: marking over the API, and looking for one mark in one picture."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from sqlalchemy import select
from starlette.testclient import TestClient

from api_shim import limits, orders
from api_shim.app import create_app
from api_shim.links import Links
from api_shim.orders import Order
from core.models import Static, Watermarking
from core.objectstore.folder import FolderStore
from core.repo import allowances, temporary
from core.services import Services
from matcher.watermark.embed import embed
from matcher.watermark.keys import new_key
from tests.api.conftest import Api
from tests.api.test_registrations import put, sealed
from tests.api.test_transport import check_error
from tests.api.test_uploads import fetch, upload
from tests.matcher.pictures import crop, encoded, photo

JPEG = {"Content-Type": "image/jpeg"}
LIMIT = "X-RateLimit-Watermarking-Daily"


def picture(seed: int, **options: object) -> bytes:
    return encoded(photo(seed), "JPEG", quality=95, **options)


def mark(api: Api, data: bytes, query: str = "", **headers: str | bytes) -> dict[str, Any]:
    answer = api.post(f"/watermarking/{query}", headers={**JPEG, **headers}, content=data)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def detect(api: Api, **question: Any) -> dict[str, Any]:
    answer = api.post("/watermarking/detect/", json=question)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def uri(data: bytes, kind: str = "image/jpeg") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def test_254_258_259_a_picture_comes_back_marked(api: Api) -> None:
    data = picture(1)
    body = mark(api, data)
    assert set(body) == {"original", "watermarked", "registration", "expiry"}
    expiry = datetime.strptime(body["expiry"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert timedelta(hours=23) < expiry - datetime.now(UTC) <= timedelta(hours=24)
    assert fetch(api, body["original"]).content == data
    marked = fetch(api, body["watermarked"])
    assert marked.headers["Content-Type"] == "image/jpeg"
    with Image.open(BytesIO(marked.content)) as image:
        assert (image.format, image.size) == ("JPEG", (600, 450))
    found = detect(api, query=body["watermarked"], registration=body["registration"])  # 266
    assert (found["marked"], found["payload"]) == (True, None)
    assert 0 <= found["p_value"] <= 1e-9
    assert np.allclose(np.reshape(found["transform"], (3, 3)), np.eye(3), atol=0.5)


def test_252_303_by_the_url_of_an_upload(api: Api) -> None:
    data = picture(2)
    answer = api.post("/watermarking", json={"url": upload(api, data)["url"], "sync": True, "timeout": 120})
    assert answer.status_code == 200
    assert fetch(api, answer.json()["original"]).content == data


def test_260_what_is_over_is_gone(api: Api) -> None:
    body = mark(api, picture(3))
    with api.services.database.write() as tx:
        for url in (body["original"], body["watermarked"], body["registration"]):
            tx.get_one(Static, int(url.rpartition("/")[2].partition(",")[0])).expires = datetime.now(UTC)
    for url in (body["original"], body["watermarked"], body["registration"]):
        check_error(fetch(api, url), 404)


def test_261_103_the_registration_is_put_as_bytes_and_as_url(api: Api) -> None:
    body = mark(api, picture(4))
    data = fetch(api, body["registration"])
    assert data.headers["Content-Type"] == "application/lmk"
    assert put(api, "a.jpg", data.content).status_code == 201
    answer = api.put(f"/media/{api.home}/b.jpg", json={"url": body["registration"]})
    assert (answer.status_code, answer.json()["type"]) == (201, "image")


def test_264_267_each_registration_detects_its_own_copy_only(api: Api) -> None:
    first, second = mark(api, picture(5)), mark(api, picture(5))
    for query, registration, expected in (
        (first["watermarked"], first["registration"], True),
        (second["watermarked"], second["registration"], True),
        (first["watermarked"], second["registration"], False),
        (first["original"], first["registration"], False),
        (upload(api, picture(6))["url"], first["registration"], False),
    ):
        found = detect(api, query=query, registration=registration)
        assert found["marked"] is expected  # 277
        assert (found["p_value"] <= 1e-9) is expected


def test_265_what_the_file_says_beside_its_pixels_is_kept(api: Api) -> None:
    image = Image.fromarray(photo(7))
    exif = image.getexif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Copyright] = 6, "(c) Jo"
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=92, exif=exif, icc_profile=b"a profile of some kind")
    body = mark(api, buffer.getvalue())
    with Image.open(BytesIO(fetch(api, body["watermarked"]).content)) as marked:
        assert marked.getexif()[ExifTags.Base.Orientation] == 6
        assert marked.getexif()[ExifTags.Base.Copyright] == "(c) Jo"
        assert marked.info["icc_profile"] == b"a profile of some kind"
    assert detect(api, query=body["watermarked"], registration=body["registration"])["marked"]


@pytest.mark.parametrize("timeout", [-1, 121, 1.5, "x", None, True])
def test_256_timeouts_that_are_none(api: Api, timeout: Any) -> None:
    check_error(api.post("/watermarking", json={"url": "http://static.test/static/1,a", "timeout": timeout}), 400, "invalid_parameters")
    check_error(api.post("/watermarking/detect", json={"query": "data:,", "timeout": timeout}), 400, "invalid_parameters")
    if timeout is not None and timeout is not True:
        check_error(api.post(f"/watermarking?timeout={timeout}", headers=JPEG, content=picture(8)), 400, "invalid_parameters")


def test_257_256_out_of_patience_is_504_and_no_use_of_the_ration(api: Api) -> None:
    answer = api.post("/watermarking?timeout=0", headers=JPEG, content=picture(8))
    check_error(answer, 504, "timeout")
    assert answer.headers[f"{LIMIT}-Remaining"] == answer.headers[LIMIT]
    body = mark(api, picture(8))
    question = {"query": body["watermarked"], "registration": body["registration"], "timeout": 0}
    check_error(api.post("/watermarking/detect/", json=question), 504, "timeout")


def wait_for(api: Api, url: str) -> Any:
    until = time.monotonic() + 60
    while (answer := fetch(api, url)).status_code == 503 and time.monotonic() < until:
        assert int(answer.headers["Retry-After"]) >= 1
        time.sleep(0.1)
    return answer


def test_253_257_nobody_waits(api: Api) -> None:
    answer = api.post("/watermarking", json={"url": upload(api, picture(9))["url"], "sync": False, "payload": 77})
    assert answer.status_code == 201
    body = answer.json()
    assert set(body) == {"original", "watermarked", "registration", "expiry"}
    assert fetch(api, body["original"]).content == picture(9)
    assert wait_for(api, body["watermarked"]).status_code == 200
    assert wait_for(api, body["registration"]).status_code == 200
    found = detect(api, query=body["watermarked"], registration=body["registration"])
    assert (found["marked"], found["payload"]) == (True, 77)


def ordered(api: Api, data: bytes) -> tuple[str, str]:
    """An order as a process left it that died at once: its folder, and the address of its result."""
    folder, now = f"watermarking/{api.account.id}/{time.monotonic_ns()}", api.services.clock.now()
    ration = limits.watermarking(api.services.settings)
    with api.services.database.write() as tx:
        taken = allowances.take(tx, api.account.id, ration, now).taken
        assert taken is not None
        order = Order(new_key(), None, None, False, taken)
        temporary.add_watermarking(tx, api.account.id, folder, orders.sealed(api.services, folder, order), now, now + timedelta(hours=1))
        static = temporary.add_static(tx, f"{folder}/watermarked", "image/jpeg", "w.jpg", now, now + timedelta(hours=1))
    api.services.store.put(f"{folder}/original", data)
    return folder, Links("", "http://static.test", api.services.settings.secret).static(static)


def test_257_an_order_is_done_by_whoever_is_there(api: Api) -> None:
    _, url = ordered(api, picture(10))
    assert wait_for(api, url).status_code == 200


def test_an_order_that_cannot_be_done_says_why_and_costs_nothing(api: Api) -> None:
    folder, url = ordered(api, b"\xff\xd8\xff\xe0 no picture")
    assert wait_for(api, url).status_code == 404
    check_error(fetch(api, url), 404, "watermarking_failed")
    check_error(api.put(f"/media/{api.home}/a.jpg", json={"url": url}), 400, "remote_failed")
    ration = limits.watermarking(api.services.settings)
    with api.services.database.read() as tx:
        assert allowances.look(tx, api.account.id, ration, api.services.clock.now()).remaining == ration.limit
        order = temporary.of_folder(tx, folder)
    assert order is not None
    assert order.state == "failed"


def test_an_order_keeps_its_secret(api: Api) -> None:
    answer = api.post("/watermarking", json={"url": upload(api, picture(11))["url"], "sync": False, "secret": "open sesame"})
    body = answer.json()
    with api.services.database.read() as tx:
        row = tx.scalars(select(Watermarking).where(Watermarking.account_id == api.account.id)).one()
    assert b"sesame" not in row.sealed
    assert wait_for(api, body["registration"]).status_code == 200
    for secret, expected in (("open sesame", True), ("wrong", False), (None, False)):  # 273
        given = {"secret": secret} if secret is not None else {}
        assert detect(api, query=body["watermarked"], registration=body["registration"], **given)["marked"] is expected


def test_payload_and_secret_beside_a_body(api: Api) -> None:
    body = mark(api, picture(12), "?payload=16777215", **{"X-Lamark-Secret": "ouvre-toi, sésame".encode()})
    found = detect(api, query=body["watermarked"], registration=body["registration"], secret="ouvre-toi, sésame")
    assert (found["marked"], found["payload"]) == (True, 16777215)
    check_error(api.post("/watermarking?payload=16777216", headers=JPEG, content=picture(12)), 400, "invalid_parameters")


def test_a_secret_is_never_left_out_silently(api: Api) -> None:
    url = upload(api, picture(12))["url"]
    answer = api.post("/watermarking", headers={"X-Lamark-Secret": "sesame"}, json={"url": url})
    question = {"query": answer.json()["watermarked"], "registration": answer.json()["registration"]}
    assert [detect(api, **question, **given)["marked"] for given in ({"secret": "sesame"}, {})] == [True, False]
    for refused in (
        api.post("/watermarking?secret=sesame", json={"url": url}),
        api.post("/watermarking?secret=sesame", headers=JPEG, content=picture(12)),
        api.post("/watermarking", headers={**JPEG, "X-Lamark-Secret": ""}, content=picture(12)),
    ):
        check_error(refused, 400, "invalid_parameters")
        assert [problem["field"] for problem in refused.json()["errors"]] == ["secret"]


@contextmanager
def served(api: Api, services: Services) -> Iterator[Api]:
    with TestClient(create_app(services), raise_server_exceptions=False) as http:
        yield replace(api, http=http, services=services)


@pytest.fixture
def frugal(api: Api) -> Iterator[Api]:
    """Two watermarkings a day."""
    settings = api.services.settings.model_copy(update={"watermarking_daily": 2})
    with served(api, replace(api.services, settings=settings)) as poor:
        yield poor


def test_262_263_the_ration(frugal: Api) -> None:
    first = frugal.post("/watermarking/", headers=JPEG, content=picture(13))
    assert (first.headers[LIMIT], first.headers[f"{LIMIT}-Remaining"]) == ("2", "1")
    for refused in (
        frugal.post("/watermarking/", headers=JPEG, content=b"no picture"),
        frugal.post("/watermarking/", headers={"Content-Type": "text/plain"}, content=b"no picture"),
        frugal.post("/watermarking/", json={"url": "http://127.0.0.1:1/nothing"}),
        frugal.post("/watermarking/", json={}),
        frugal.post("/watermarking/", headers=JPEG, content=b""),
    ):
        assert 400 <= refused.status_code < 500
        assert refused.headers[f"{LIMIT}-Remaining"] == "1"
    body = first.json()
    others = [
        frugal.post("/watermarking/detect/", json={"query": body["watermarked"], "registration": body["registration"]}),
        frugal.get("/watermarking/key/"),
        frugal.get("/account"),
    ]
    for other in others:
        assert other.status_code == 200
        assert not [name for name in other.headers if "watermarking" in name.lower()]
    assert frugal.post("/watermarking/", headers=JPEG, content=picture(13)).headers[f"{LIMIT}-Remaining"] == "0"
    last = frugal.post("/watermarking/", headers=JPEG, content=picture(13))
    check_error(last, 429)
    assert 86_000 < int(last.headers["Retry-After"]) <= 86_400
    assert last.headers[f"{LIMIT}-Remaining"] == "0"


def test_269_270_the_registration_of_a_media(api: Api, other: Api) -> None:
    rgb = photo(14)
    marked, mine = embed(rgb)
    query = upload(api, encoded(crop(marked, 0.1, 0.2, 0.5), "JPEG", quality=70))["url"]
    assert put(api, "marked.jpg", sealed(api, mine)).status_code == 201
    assert api.put(f"/media/{api.home}/plain.png", headers={"Content-Type": "image/png"}, content=encoded(rgb, "PNG")).status_code == 201
    there = f"http://testserver/api/v1/media/{api.home}"
    assert detect(api, query=query, registration=f"{there}/marked.jpg")["marked"] is True
    assert detect(api, query=query, registration=uri(sealed(api, mine), "application/lmk"))["marked"] is True
    assert detect(api, query=uri(encoded(marked, "JPEG")), registration=f"{there}/marked.jpg")["marked"] is True  # 271
    for registration, status, code in (
        (f"{there}/plain.png", 400, "not_watermarked"),
        (f"{there}/nothing.png", 404, "media_not_found"),
        (f"http://testserver/api/v1/media/{other.home}/marked.jpg", 403, "foreign_home"),
        (uri(sealed(other, mine)), 400, "registration_of_another_key"),
        (uri(b"no registration"), 400, "invalid_registration"),
        ("data:;base64,no base64!", 400, "invalid_data_uri"),
        ("data:nothing", 400, "invalid_data_uri"),
    ):
        check_error(api.post("/watermarking/detect", json={"query": query, "registration": registration}), status, code)


def test_272_transactional(api: Api) -> None:
    original = picture(15)
    body = api.post("/watermarking", json={"url": upload(api, original)["url"], "transactional": True}).json()
    question = {"query": body["watermarked"], "registration": body["registration"]}
    check_error(api.post("/watermarking/detect", json=question), 400, "original_required")
    assert detect(api, **question, original=uri(original))["marked"] is True
    other = upload(api, picture(16))["url"]
    check_error(api.post("/watermarking/detect", json={**question, "original": other}), 400, "original_differs")
    assert api.put(f"/media/{api.home}/a.jpg", headers=JPEG, content=original).status_code == 201
    assert detect(api, **question)["marked"] is True


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({"registration": "data:,x"}, "invalid_parameters"),  # 268
        ({"query": "data:,x"}, "invalid_parameters"),  # 275
        ({"query": "data:,x", "secret": "s"}, "invalid_parameters"),
        ({"query": "data:,x", "registration": "data:,x", "payload_max": 16777216}, "invalid_parameters"),  # 274
        ({"query": "data:,x", "registration": "data:,x", "payload_max": -1}, "invalid_parameters"),
        ({"query": "data:,x", "registration": "data:,x", "payload_max": "5"}, "invalid_parameters"),
        ({"query": "data:,x", "registration": "data:,x", "secret": ""}, "invalid_parameters"),
        ({"query": "data:,x", "registration": "http://127.0.0.1:1/nothing"}, "remote_failed"),
        ({"query": "data:,x", "registration": "http://static.test/static/1,00000000000000000000"}, "remote_failed"),
    ],
)
def test_what_is_no_question(api: Api, question: dict[str, Any], code: str) -> None:
    check_error(api.post("/watermarking/detect", json=question), 400, code)


def test_268_queries_that_are_none(api: Api) -> None:
    registration = uri(sealed(api, embed(photo(17))[1]))
    for query, status, code in (("http://127.0.0.1:1/nothing", 400, "remote_failed"), ("data:,x", 400, "invalid_image")):
        check_error(api.post("/watermarking/detect", json={"query": query, "registration": registration}), status, code)


@pytest.mark.parametrize(
    ("kind", "data", "status", "code"),
    [
        ("image/jpeg", encoded(photo(18, 70, 60), "JPEG"), 400, "image_too_small"),
        ("image/jpeg", b"GIF89a" + bytes(40), 415, "unsupported_media"),
        ("image/jpeg", encoded(photo(18), "JPEG")[:5000], 400, "invalid_image"),
        ("image/jpeg", b"no picture", 400, "invalid_image"),
        ("text/plain", b"no picture", 415, "unsupported_media"),
        ("video/mp4", b"no picture", 501, "not_implemented"),
    ],
)
def test_pictures_that_are_not_marked(api: Api, kind: str, data: bytes, status: int, code: str) -> None:
    check_error(api.post("/watermarking", headers={"Content-Type": kind}, content=data), status, code)
    assert not list(api.services.store.list(f"watermarking/{api.account.id}/"))


@pytest.mark.parametrize("data", [encoded(photo(18, 70, 60), "JPEG"), b"GIF89a" + bytes(40), b"no picture"])
def test_what_the_header_tells_is_refused_also_where_nobody_waits(api: Api, data: bytes) -> None:
    assert api.post("/watermarking?sync=false", headers=JPEG, content=data).status_code in (400, 415)


@pytest.mark.parametrize(("kind", "name"), [("PNG", "image/png"), ("WEBP", "image/webp"), ("TIFF", "image/tiff")])
def test_258_other_kinds_stay_what_they_are(api: Api, kind: str, name: str) -> None:
    data = encoded(photo(20), kind)
    answer = api.post("/watermarking", headers={"Content-Type": name}, content=data)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    for url in (body["original"], body["watermarked"]):
        assert fetch(api, url).headers["Content-Type"] == name
    with Image.open(BytesIO(fetch(api, body["watermarked"]).content)) as image:
        assert (image.format, image.size) == (kind, (600, 450))
    assert detect(api, query=body["watermarked"], registration=body["registration"])["marked"] is True


def test_a_store_that_is_away_is_503_and_costs_nothing(api: Api, tmp_path: Path) -> None:
    store = FolderStore(tmp_path, public_url="http://static.test", secret=b"")
    (tmp_path / "incoming").rmdir()  # nothing can be put any more
    with served(api, replace(api.services, store=store)) as poor:
        for query in ("", "?sync=false"):
            answer = poor.post(f"/watermarking/{query}", headers=JPEG, content=picture(19))
            check_error(answer, 503)
            assert answer.headers["Retry-After"]
            assert answer.headers[f"{LIMIT}-Remaining"] == answer.headers[LIMIT]
    with api.services.database.read() as tx:
        assert not list(tx.scalars(select(Static).where(Static.key.startswith(f"watermarking/{api.account.id}/"))))
        assert not list(tx.scalars(select(Watermarking).where(Watermarking.account_id == api.account.id)))
