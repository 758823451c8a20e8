"""Group U, 266-278: whether a picture carries the mark of one registration."""

from __future__ import annotations

import base64
from dataclasses import replace
from functools import cache
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from matcher.pixels import U8
from matcher.watermark.embed import embed
from matcher.watermark.registration import Registration
from tests.api.conftest import Api
from tests.api.test_registrations import put, sealed
from tests.api.test_transport import check_error
from tests.api.test_uploads import upload
from tests.matcher.pictures import encoded, photo


def rgb(number: int) -> U8:
    return photo(number, 480, 360)


@cache
def pair(number: int, payload: int | None = None, secret: str | None = None, *, transactional: bool = False) -> tuple[U8, Registration]:
    return embed(rgb(number), payload=payload, secret=secret, transactional=transactional)


def uri(data: bytes) -> str:
    return f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"


def lmk_uri(api: Api, mark: Registration) -> str:
    return uri(sealed(api, mark))


def picture_uri(pixels: U8) -> str:
    return uri(encoded(pixels, "JPEG", quality=85))


def ask(api: Api, **fields: Any) -> Any:
    return api.post("/watermarking/detect/", json=fields)


def detected(api: Api, **fields: Any) -> dict[str, Any]:
    answer = ask(api, **fields)
    assert answer.status_code == 200, answer.text
    body = dict(answer.json())
    assert set(body) == {"marked", "p_value", "payload", "transform"}
    assert isinstance(body["marked"], bool)  # 277
    assert body["marked"] == (body["p_value"] <= 1e-9)
    return body


def test_the_transform_is_in_pixels_of_both_as_they_came(api: Api) -> None:
    marked, mark = embed(photo(3, 3000, 2000))
    found = detected(api, query=picture_uri(marked[:, 500:]), registration=lmk_uri(api, mark))
    assert found["marked"]
    assert np.allclose(np.reshape(found["transform"], (3, 3)), [[1, 0, -500], [0, 1, 0], [0, 0, 1]], atol=1.5)


def test_269_271_addresses_data_and_media(api: Api) -> None:
    marked, mark = pair(4)
    data = encoded(marked, "JPEG", quality=85)
    assert put(api, "a b/ä.jpg", sealed(api, mark)).status_code == 201
    url = api.get(f"/media/{quote(f'{api.home}/a b/ä.jpg')}").json()["url"]
    answer = api.post("/watermarking/", headers={"Content-Type": "image/jpeg"}, content=encoded(rgb(4), "JPEG", quality=90)).json()
    assert detected(api, query=answer["watermarked"], registration=answer["registration"])["marked"]
    assert not detected(api, query=answer["original"], registration=answer["registration"])["marked"]
    queries = [upload(api, data)["url"], uri(data), "data:," + quote(data)]
    for query in queries:
        for registration in (url, f"{url}/", url.replace("http://testserver", "http://static.test"), lmk_uri(api, mark)):
            assert detected(api, query=query, registration=registration)["marked"]


def test_272_transactional_media_and_the_registration_of_their_original(api: Api) -> None:
    marked, mark = pair(6, transactional=True)
    asked = {"query": picture_uri(marked), "registration": lmk_uri(api, mark)}
    check_error(ask(api, **asked, original=uri(b"no picture")), 400, "invalid_image")
    assert put(api, "full.jpg", sealed(api, pair(6)[1])).status_code == 201
    assert detected(api, **asked)["marked"]
    assert put(api, "again.jpg", sealed(api, mark)).status_code == 201
    url = f"http://testserver/api/v1/media/{api.home}/again.jpg"
    assert detected(api, query=asked["query"], registration=url)["marked"]
    assert not detected(api, query=picture_uri(pair(6)[0]), registration=url)["marked"]


def test_274_payloads(api: Api) -> None:
    marked, mark = pair(9, payload=1000)
    asked = {"query": picture_uri(marked), "registration": lmk_uri(api, mark)}
    assert detected(api, **asked)["payload"] == 1000
    assert detected(api, **asked, payload_max=1000)["payload"] == 1000
    assert detected(api, **asked, payload_max=999)["payload"] != 1000
    for payload_max in (-1, 1 << 24, 1.5, "7", True):
        check_error(ask(api, **asked, payload_max=payload_max), 400, "invalid_parameters")


def test_268_275_276_what_is_missing_or_wrong(api: Api) -> None:
    query, registration = picture_uri(rgb(10)), lmk_uri(api, pair(10)[1])
    for fields, names in (
        ({}, {"query", "registration"}),
        ({"registration": registration}, {"query"}),
        ({"query": query}, {"registration"}),
        ({"query": 3, "registration": None, "sync": "x", "timeout": 121}, {"query", "registration", "sync", "timeout"}),
    ):
        answer = ask(api, **fields)
        check_error(answer, 400, "invalid_parameters")
        assert {problem["field"] for problem in answer.json()["errors"]} == names
    assert not detected(api, query=query, registration=registration, sync=False, timeout=120)["marked"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("http://127.0.0.1:1/a.jpg", "remote_failed"),
        ("http://10.0.0.1/a.jpg", "address_refused"),
        ("http://static.test/static/1,00000000000000000000", "remote_failed"),
        ("no url", "invalid_url"),
        ("data:image/jpeg;base64,?", "invalid_data_uri"),
        ("data:image/jpeg;base64,", "invalid_image"),
        (uri(b"no picture"), "invalid_image"),
        (picture_uri(rgb(10))[:3000], "invalid_data_uri"),
        (uri(encoded(rgb(10), "JPEG")[:3000]), "invalid_image"),
    ],
)
def test_268_queries_that_are_none(api: Api, query: str, code: str) -> None:
    check_error(ask(api, query=query, registration=lmk_uri(api, pair(10)[1])), 400, code)


def test_registrations_that_are_none(api: Api, other: Api) -> None:
    mark = pair(11)[1]
    good, query = sealed(api, mark), picture_uri(pair(11)[0])
    for data, code in (
        (b"no registration", "invalid_registration"),
        (good[:-1], "invalid_registration"),
        (good[:-20] + bytes([good[-20] ^ 1]) + good[-19:], "invalid_registration"),
        (good[:4] + b"\x63" + good[5:], "registration_too_new"),
        (sealed(other, mark), "registration_of_another_key"),
        (sealed(api, replace(mark, small=b"no picture")), "invalid_registration"),
        (sealed(api, replace(mark, small=encoded(np.zeros((4000, 4000, 3), np.uint8), "JPEG", quality=1))), "invalid_registration"),
        (encoded(rgb(11), "JPEG"), "invalid_registration"),
    ):
        check_error(ask(api, query=query, registration=uri(data)), 400, code)
