from __future__ import annotations

import pytest
from sqlalchemy import select

from core.errors import Forbidden
from core.models import Picture
from core.services import Services
from matcher.copies.features import Fingerprint
from matcher.decode import decode
from matcher.registrar import PREVIEW_SIDE, THUMBNAIL_SIDE, prepare, register
from matcher.watermark.embed import embed
from tests.matcher.pictures import encoded, photo
from tests.matcher.world import World


def test_what_is_prepared() -> None:
    prepared = prepare(encoded(photo(1, 1500, 1000), "PNG"))
    assert (prepared.width, prepared.height, prepared.credit) == (1500, 1000, None)
    assert decode(prepared.preview)[1] == (PREVIEW_SIDE, 853)
    assert decode(prepared.thumbnail)[1] == (THUMBNAIL_SIDE, 213)
    print_ = Fingerprint.from_bytes(prepared.fingerprint)
    assert (print_.width, print_.height) == (1500, 1000)
    assert max(decode(prepare(encoded(photo(1, 60, 40), "PNG")).preview)[1]) == 60


def test_the_same_pixels_are_one_picture_with_two_registrations(services: Services) -> None:
    world = World(services)
    data = encoded(photo(1), "PNG")
    _, registration = embed(photo(1))
    first = world.register("plain.png", data)
    second = world.register("keyed.png", data, watermark=registration)
    again = world.register("plain.png", data)
    assert (first.created, second.created, again.created) == (True, True, False)
    with services.database.read() as tx:
        (picture,) = tx.scalars(select(Picture)).all()
    assert sorted(r.key_id for r in picture.registrations) == sorted(["", registration.key_id])
    assert picture.pixel_hash == registration.pixel_hash.hex()
    Fingerprint.from_bytes(services.store.get(picture.fingerprint_key))


def test_a_path_of_somebody_else_is_refused(services: Services) -> None:
    world = World(services)
    other = world.add_account("ben")
    with pytest.raises(Forbidden):
        register(services, world.account.id, f"{other.home}/x.png", prepare(encoded(photo(1), "PNG")), disk_usage=1)
