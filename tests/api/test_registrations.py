"""Group J: watermarked media come in as the registration that is sealed to the account's key."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from api_shim.links import Links
from core.events import MediaChanged
from core.models import Picture, Registration
from core.repo import media, temporary
from matcher.decode import decode
from matcher.registrar import prepare
from matcher.watermark import lmk
from matcher.watermark.detect import detect
from matcher.watermark.embed import embed
from matcher.watermark.registration import Registration as Mark
from tests.api.conftest import Api
from tests.api.test_transport import check_error
from tests.api.test_uploads import fetch
from tests.matcher.pictures import encoded, photo

LMK = {"Content-Type": "application/lmk"}
PNG = {"Content-Type": "image/png"}


def sealed(api: Api, mark: Mark) -> bytes:
    """As the watermarking software writes it: with the key that the API gives."""
    return lmk.seal(mark, lmk.read_public_key(api.get("/watermarking/key/").json()["key"].encode()))


def put(api: Api, name: str, data: bytes, **headers: str) -> Any:
    return api.put(f"/media/{api.home}/{name}", headers={**LMK, **headers}, content=data)


def pictures(api: Api) -> list[Picture]:
    with api.services.database.read() as tx:
        return list(tx.scalars(select(Picture).where(Picture.account_id == api.account.id)))


def keys(api: Api) -> list[str]:
    """Key ids of the account's registrations."""
    with api.services.database.read() as tx:
        query = select(Registration.key_id).join(Picture).where(Picture.account_id == api.account.id)
        return sorted(tx.scalars(query))


def preview_of(api: Api, shown: dict[str, Any]) -> Any:
    got = fetch(api, shown["image"])
    assert (got.status_code, got.headers["Content-Type"]) == (200, "image/jpeg")
    return decode(got.content)[0]


@pytest.mark.parametrize("size", [(1500, 1000), (320, 240), (700, 933)])
def test_102_104_078_079_a_registration_becomes_a_media_with_a_marked_preview(api: Api, size: tuple[int, int]) -> None:
    _, mark = embed(photo(1, *size))
    data = sealed(api, mark)
    before = api.get("/account").json()
    answer = put(api, f"{size}.jpg", data)
    assert answer.status_code == 201, answer.text
    shown = answer.json()
    assert shown["type"] == "image"
    assert {"image", "thumbnail", "web_matches", "press_matches", "user_matches"} <= set(shown)
    assert "exclusive" not in shown
    preview = preview_of(api, shown)
    assert max(preview.shape[:2]) <= 1280
    assert abs(preview.shape[1] / preview.shape[0] - size[0] / size[1]) < 0.02
    assert detect(preview, mark).marked
    assert not detect(preview, embed(photo(1, *size))[1]).marked
    after = api.get("/account").json()
    assert (after["image_count"], after["disk_usage"]) == (before["image_count"] + 1, before["disk_usage"] + len(data))  # 115
    assert api.delete(f"/media/{api.home}/{size}.jpg").status_code == 204
    assert api.get("/account").json() == before


def test_103_108_the_content_behind_a_url_decides(api: Api) -> None:
    data = sealed(api, embed(photo(2))[1])
    key = f"uploads/{api.account.id}/lmk"
    api.services.store.put(key, data)
    now = api.services.clock.now()
    with api.services.database.write() as tx:
        static = temporary.add_static(tx, key, "application/lmk", "registration.lmk", now, now.replace(year=now.year + 1))
    url = Links("http://testserver", "http://static.test", api.services.settings.secret).static(static)
    answer = api.put(f"/media/{api.home}/any.jpg", json={"url": url, "exclusive": True})
    assert (answer.status_code, answer.json()["exclusive"]) == (201, True)
    assert keys(api) == [key_id_of(api, data)]


def key_id_of(api: Api, data: bytes) -> str:
    return api.http.app.state.api.keys.unseal(api.account.id, data).key_id  # type: ignore[attr-defined,no-any-return]


def too_large() -> bytes:
    """A small picture that is none: few bytes, many pixels."""
    return encoded(np.zeros((3000, 4000, 3), np.uint8), "JPEG", quality=1)


def test_107_what_is_no_registration_of_this_account(api: Api, other: Api) -> None:
    good, foreign = sealed(api, embed(photo(3))[1]), sealed(other, embed(photo(3))[1])
    damaged = good[:-20] + bytes([good[-20] ^ 1]) + good[-19:]
    for data, code in (
        (b"no registration at all", "invalid_registration"),
        (good[:300], "invalid_registration"),
        (good[:-1], "invalid_registration"),
        (damaged, "invalid_registration"),
        (good[:4] + b"\x63" + good[5:], "registration_too_new"),
        (foreign, "registration_of_another_key"),
        (encoded(photo(3), "JPEG"), "invalid_registration"),
        (sealed(api, replace(embed(photo(3))[1], small=b"no picture")), "invalid_registration"),
        (sealed(api, replace(embed(photo(3))[1], small=too_large())), "invalid_registration"),
        (sealed(api, replace(embed(photo(3))[1], width=10_000)), "invalid_registration"),
    ):
        check_error(put(api, "a.jpg", data), 400, code)
    check_error(api.put(f"/media/{api.home}/a.jpg", headers={"Content-Type": "image/jpeg"}, content=good), 400, "invalid_image")
    check_error(api.get(f"/media/{api.home}/a.jpg"), 404)
    assert pictures(api) == []


def test_109_replacing_and_folders(api: Api) -> None:
    first, second = embed(photo(4))[1], embed(photo(4))[1]
    assert put(api, "a.jpg", sealed(api, first)).status_code == 201
    assert put(api, "a.jpg", sealed(api, second)).status_code == 200
    state = change_of(api)
    assert [key.key_id for key in state.keys] == [second.key_id]
    api.folder(f"{api.home}/folder")
    check_error(put(api, "folder", sealed(api, first)), 409, "is_folder")


def change_of(api: Api) -> MediaChanged:
    """The account's one picture, as matchers hear of it."""
    (picture,) = pictures(api)
    with api.services.database.read() as tx:
        return media.changed(tx, picture.id)


def test_110_112_a_transactional_registration_takes_the_picture_that_is_there(api: Api) -> None:
    full, first, second = (embed(photo(5), transactional=transactional)[1] for transactional in (False, True, True))
    check_error(put(api, "t1.jpg", sealed(api, first)), 409, "original_not_registered")  # 111
    check_error(api.get(f"/media/{api.home}/t1.jpg"), 404)
    assert pictures(api) == []
    assert put(api, "full.jpg", sealed(api, full)).status_code == 201
    answer = put(api, "t1.jpg", sealed(api, first))
    assert answer.status_code == 201, answer.text
    shown = api.get(f"/media/{api.home}/full.jpg").json()
    assert (answer.json()["image"], answer.json()["thumbnail"]) == (shown["image"], shown["thumbnail"])
    assert detect(preview_of(api, answer.json()), full).marked
    # the first one may go: the picture is still there, and with it what both are looked for with
    assert api.delete(f"/media/{api.home}/full.jpg").status_code == 204
    assert put(api, "t2.jpg", sealed(api, second)).status_code == 201
    small_key = str(change_of(api).small_key)
    assert api.services.store.get(small_key) == full.small
    for name in ("t1.jpg", "t2.jpg"):
        assert api.delete(f"/media/{api.home}/{name}").status_code == 204
    assert not list(api.services.store.list(small_key))
    check_error(put(api, "t1.jpg", sealed(api, first)), 409, "original_not_registered")  # 112


def test_110_the_original_may_be_registered_plain(api: Api) -> None:
    assert api.put(f"/media/{api.home}/plain.png", headers=PNG, content=encoded(photo(6), "PNG")).status_code == 201
    mark = embed(photo(6), transactional=True)[1]
    assert put(api, "t.jpg", sealed(api, mark)).status_code == 201
    small = api.services.store.get(str(change_of(api).small_key))
    assert detect(embed(photo(6), key=mark.key)[0], replace(mark, small=small)).marked


def test_113_one_registration_at_two_paths_is_one(api: Api) -> None:
    mark = embed(photo(7))[1]
    for name in ("a.jpg", "b/c.jpg"):
        assert put(api, name, sealed(api, mark)).status_code == 201
    assert keys(api) == [mark.key_id]
    match = api.match(api.node("a.jpg"), key_id=mark.key_id, watermarked=True, p_value=1e-20, payload=5)
    assert match is not None
    shown = api.get(f"/matches/{match.id}").json()
    assert [node["path"] for node in shown["paths"]] == [f"{api.home}/a.jpg", f"{api.home}/b/c.jpg"]
    assert (shown["watermarked"], shown["p_value"], shown["payload"]) == (True, 1e-20, 5)


def test_133_exclusive_and_114_foreign_homes(api: Api, other: Api) -> None:
    data = sealed(api, embed(photo(8))[1])
    assert put(api, "a.jpg", data, **{"X-Lamark-Exclusive": "yes"}).json()["exclusive"] is True
    check_error(put(api, "b.jpg", data, **{"X-Lamark-Exclusive": "perhaps"}), 400)
    check_error(api.put(f"/media/{other.home}/a.jpg", headers=LMK, content=data), 403, "foreign_home")


@pytest.mark.parametrize("plain_first", [True, False])
def test_a_picture_that_comes_both_ways_has_the_better_fingerprint(api: Api, *, plain_first: bool) -> None:
    rgb = photo(9, 1500, 1000)
    mark = embed(rgb)[1]
    steps = [
        lambda: api.put(f"/media/{api.home}/plain.png", headers=PNG, content=encoded(rgb, "PNG")),
        lambda: put(api, "keyed.jpg", sealed(api, mark)),
    ]
    for step in steps if plain_first else reversed(steps):
        assert step().status_code == 201
    (picture,) = pictures(api)
    assert not picture.reduced
    assert keys(api) == sorted(["", mark.key_id])
    assert api.services.store.get(picture.fingerprint_key) == prepare(encoded(rgb, "PNG")).fingerprint
    plain, keyed = (preview_of(api, api.get(f"/media/{api.home}/{name}").json()) for name in ("plain.png", "keyed.jpg"))
    assert plain.shape[:2] == (853, 1280)
    assert (detect(plain, mark).marked, detect(keyed, mark).marked) == (False, True)  # 080, 078
    assert api.delete(f"/media/{api.home}/keyed.jpg").status_code == 204
    assert fetch(api, api.get(f"/media/{api.home}/plain.png").json()["image"]).status_code == 200


def test_a_mark_with_a_passphrase_is_in_no_preview(api: Api) -> None:
    mark = embed(photo(10), secret="sesame")[1]
    preview = preview_of(api, put(api, "a.jpg", sealed(api, mark)).json())
    assert not detect(preview, mark, secret="sesame").marked


def test_a_mark_with_a_payload_is_in_the_preview(api: Api) -> None:
    mark = embed(photo(11), payload=77)[1]
    preview = preview_of(api, put(api, "a.jpg", sealed(api, mark)).json())
    assert detect(preview, mark).marked


@pytest.mark.parametrize(("quota", "value"), [("image_quota", 1), ("disk_quota", 70_000)])
def test_116_beyond_a_quota_nothing_is_stored(api: Api, quota: str, value: int) -> None:
    with api.services.database.write() as tx:
        setattr(tx.merge(api.account), quota, value)
    assert api.get("/account").json()[quota] == value
    marks = [sealed(api, embed(photo(number))[1]) for number in (12, 13)]
    assert put(api, "a.jpg", marks[0]).status_code == 201
    check_error(put(api, "b.jpg", marks[1]), 403, "quota_exceeded")
    check_error(api.get(f"/media/{api.home}/b.jpg"), 404)
    assert len(pictures(api)) == 1
    assert put(api, "a.jpg", marks[1]).status_code == 200  # in its place there is room
    assert Image.open(BytesIO(fetch(api, api.get(f"/media/{api.home}/a.jpg").json()["thumbnail"]).content)).format == "JPEG"
