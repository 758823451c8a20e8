"""Registered pictures: what the original and registrations of watermarks each know of one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from core.errors import Conflict, Forbidden
from core.models import Media, Picture, Static
from core.repo import media, pictures
from core.repo.pictures import PictureDraft
from core.services import Services
from tests.core.test_repo_media import NOW, account_of, draft

PLAIN = draft("p1")


def of_mark(key: str) -> PictureDraft:
    """As of a registration alone."""
    made = draft("p1", key_id=key, lmk_key=f"registrations/1/{key}.lmk")
    return replace(made, small_key=made.fingerprint_key.replace("fingerprint", "small"), marked_key=made.preview_key, reduced=True)


def again(key: str) -> PictureDraft:
    """Transactional."""
    return PictureDraft("p1", 0, 0, None, "", "", "", 1, key, f"registrations/1/{key}.lmk", transactional=True)


def put(tx: Session, account_id: int, name: str, given: PictureDraft) -> Media:
    return media.put_picture(tx, account_id, f"jo/{name}", given, NOW)[0]


def shown(tx: Session, node: Media) -> str:
    """Object key of the media's preview."""
    assert node.registration is not None
    picture = tx.get_one(Picture, node.registration.picture_id)
    return tx.get_one(Static, node.registration.preview_id or picture.preview_id).key


def test_a_transactional_key_needs_the_picture(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        with pytest.raises(Conflict) as caught:
            put(tx, jo.id, "t", again("t"))
        assert caught.value.code == "original_not_registered"
        first, second = of_mark("a"), again("t")
        put(tx, jo.id, "a", first)
        node = put(tx, jo.id, "t", second)
        assert shown(tx, node) == first.preview_key
        (picture,) = tx.scalars(select(Picture)).all()
        assert media.changed(tx, picture.id).small_key == first.small_key
        gone = media.delete(tx, jo.id, "jo/a", NOW)
        assert gone == [first.lmk_key]  # what the other one needs stays
        gone = media.delete(tx, jo.id, "jo/t", NOW)
        assert set(gone) - {first.lmk_key} == {
            second.lmk_key,
            first.small_key,
            first.fingerprint_key,
            first.preview_key,
            first.thumbnail_key,
        }
        with pytest.raises(Conflict):
            put(tx, jo.id, "t", again("t"))
        assert pictures.by_pixels(tx, jo.id, "p1") is None


def test_the_original_takes_the_place_of_what_was_made_of_the_small_picture(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        reduced, plain = of_mark("a"), replace(PLAIN, credit="© Jo")
        keyed, other = put(tx, jo.id, "a", reduced), put(tx, jo.id, "t", again("t"))
        version = jo.registry_version
        node = put(tx, jo.id, "plain", plain)
        (picture,) = tx.scalars(select(Picture)).all()
        assert (picture.fingerprint_key, picture.reduced, picture.credit) == (plain.fingerprint_key, False, "© Jo")
        assert picture.version == jo.registry_version == version + 1
        assert [shown(tx, each) for each in (keyed, other, node)] == [reduced.preview_key, reduced.preview_key, plain.preview_key]
        assert reduced.preview_key not in media.delete(tx, jo.id, "jo/a", NOW)  # the other one shows it
        assert reduced.preview_key in media.delete(tx, jo.id, "jo/t", NOW)


def test_what_was_made_of_a_small_picture_takes_no_originals_place(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        reduced = of_mark("a")
        node, keyed = put(tx, jo.id, "plain", PLAIN), put(tx, jo.id, "a", reduced)
        (picture,) = tx.scalars(select(Picture)).all()
        assert (picture.fingerprint_key, picture.small_key, picture.reduced) == (PLAIN.fingerprint_key, reduced.small_key, False)
        assert (shown(tx, node), shown(tx, keyed)) == (PLAIN.preview_key, reduced.preview_key)


@pytest.mark.parametrize(("images", "size", "fits"), [(1, None, False), (2, 10, True), (2, 9, False), (None, None, True), (None, 9, False)])
def test_quotas(services: Services, images: int | None, size: int | None, *, fits: bool) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        put(tx, jo.id, "a", draft("p1"))
        jo.image_quota, jo.disk_quota = images, size
        tx.flush()
        if fits:
            put(tx, jo.id, "b", draft("p2"))
            return
        with pytest.raises(Forbidden) as caught:
            put(tx, jo.id, "b", draft("p2"))
        assert caught.value.code == "quota_exceeded"
