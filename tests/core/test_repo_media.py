"""The media tree and what is registered through it."""

from __future__ import annotations

import itertools
import unicodedata
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.errors import Conflict, FiligraneError, Forbidden, InvalidInput, NotFound
from core.models import Account, Media, Outbox, Picture
from core.repo import accounts, media
from core.repo.pictures import PictureDraft
from core.services import Services

NOW = datetime(2026, 11, 23, tzinfo=UTC)
_numbers = itertools.count(1)


def draft(pixels: str = "p1", *, key_id: str = "", lmk_key: str | None = None, exclusive: bool | None = None) -> PictureDraft:
    stem = f"pictures/1/{pixels}/{next(_numbers)}"
    return PictureDraft(
        pixels, 10, 20, None, f"{stem}/fingerprint", f"{stem}/preview.jpg", f"{stem}/thumbnail.jpg", 5, key_id, lmk_key, exclusive
    )


def account_of(tx: Session, name: str = "jo") -> Account:
    return accounts.create(tx, b"secret", name, now=NOW)[0]


def test_registering_raises_the_version(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        node, created = media.put_picture(tx, jo.id, "jo/a/b.jpg", draft(), NOW)
        assert created
        assert node.registration is not None
        state = media.changed(tx, node.registration.picture_id)
        assert (state.account, state.version, state.deleted) == (jo.id, 1, False)
        assert [key.key_id for key in state.keys] == [""]
        assert jo.registry_version == 1
        assert media.changes(tx, jo.id, 0) == [state]
        assert media.changes(tx, jo.id, 1) == []
        assert [row.subject_id for row in tx.scalars(select(Outbox).where(Outbox.topic == "media"))] == [state.picture]
        assert [child.path for child in tx.scalars(media.children(media.get(tx, jo.id, "jo").id))] == ["jo/a"]


def test_replacing_makes_a_new_media_row(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        first, _ = media.put_picture(tx, jo.id, "jo/a.jpg", draft("p1"), NOW)
        first_id = first.id
        second, created = media.put_picture(tx, jo.id, "jo/a.jpg", draft("p2", key_id="k"), NOW)
        assert not created
        assert second.id != first_id
        old, new = media.changes(tx, jo.id, 1)
        assert (old.deleted, old.keys) == (True, ())
        assert (new.deleted, [key.key_id for key in new.keys]) == (False, ["k"])
        assert old.version == new.version == jo.registry_version == 2


def test_one_picture_many_media(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        media.put_picture(tx, jo.id, "jo/plain.jpg", draft("p"), NOW)
        kept = media.changes(tx, jo.id, 0)[0].fingerprint_key
        media.put_picture(tx, jo.id, "jo/marked.jpg", draft("p", key_id="k1", lmk_key="registrations/1/a.lmk"), NOW)
        [state] = media.changes(tx, jo.id, 1)
        assert state.fingerprint_key == kept
        assert [(key.key_id, key.lmk_key) for key in state.keys] == [("", None), ("k1", "registrations/1/a.lmk")]
        assert media.delete(tx, jo.id, "jo/marked.jpg", NOW) == ["registrations/1/a.lmk"]
        [state] = media.changes(tx, jo.id, 2)
        assert ([key.key_id for key in state.keys], state.deleted) == ([""], False)
        keys = media.delete(tx, jo.id, "jo/plain.jpg", NOW)
        assert set(keys) >= {kept}
        assert len(keys) == 4
        assert media.changes(tx, jo.id, 3)[0].deleted


def test_registering_anew_after_deletion_takes_the_new_objects(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        media.put_picture(tx, jo.id, "jo/a.jpg", draft("p"), NOW)
        media.delete(tx, jo.id, "jo/a.jpg", NOW)
        again = draft("p")
        media.put_picture(tx, jo.id, "jo/a.jpg", again, NOW)
        [state] = media.changes(tx, jo.id, 2)
        assert (state.fingerprint_key, state.deleted) == (again.fingerprint_key, False)
        assert len(tx.scalars(select(Picture)).all()) == 1


def test_linked_media(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        node, _ = media.put_picture(tx, jo.id, "jo/plain.jpg", draft("p"), NOW)
        media.put_picture(tx, jo.id, "jo/marked.jpg", draft("p", key_id="k1"), NOW)
        assert node.registration is not None
        picture = node.registration.picture_id

        def paths(key_id: str, *, key_detected: bool = False) -> list[str]:
            return [found.path for found in media.linked(tx, picture, key_id, key_detected=key_detected)]

        assert paths("k1") == ["jo/marked.jpg"]
        assert paths("") == ["jo/plain.jpg", "jo/marked.jpg"]
        assert paths("", key_detected=True) == ["jo/plain.jpg"]
        assert paths("other") == []


def test_deleting_a_folder_takes_all_below_and_nothing_else(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        for path in ("jo/a/x.jpg", "jo/a/b/y.jpg", "jo/ab/z.jpg", "jo/A/w.jpg"):
            media.put_picture(tx, jo.id, path, draft(path), NOW)
        version = jo.registry_version
        media.delete(tx, jo.id, "jo/a", NOW)
        assert jo.registry_version == version + 1
        left = set(tx.scalars(select(Media.path)))
        assert left == {"jo", "jo/ab", "jo/ab/z.jpg", "jo/A", "jo/A/w.jpg"}
        assert [state.deleted for state in media.changes(tx, jo.id, version)] == [True, True]


def test_whose_and_what(services: Services) -> None:
    with services.database.write() as tx:
        jo, ann = account_of(tx, "jo"), account_of(tx, "ann")
        media.put_picture(tx, ann.id, "ann/a.jpg", draft(), NOW)
        for path in ("ann", "ann/a.jpg", "ann/none", "nobody/x"):
            for action in (
                lambda path=path: media.get(tx, jo.id, path),
                lambda path=path: media.delete(tx, jo.id, path, NOW),
                lambda path=path: media.create_folder(tx, jo.id, f"{path}/x", NOW),
                lambda path=path: media.put_picture(tx, jo.id, f"{path}/x", draft(), NOW),
            ):
                with pytest.raises(Forbidden):
                    action()
        with pytest.raises(NotFound):
            media.get(tx, jo.id, "jo/none")
        with pytest.raises(Forbidden):
            media.delete(tx, jo.id, "jo", NOW)
        with pytest.raises(Conflict):
            media.put_picture(tx, jo.id, "jo", draft(), NOW)
        with pytest.raises(Conflict):
            media.put_picture(tx, ann.id, "ann/a.jpg/b.jpg", draft(), NOW)
        with pytest.raises(InvalidInput):
            media.create_folder(tx, jo.id, "jo/_move", NOW)


def test_folders_are_made_once(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        path = "/".join(["jo", *("d" * 50)])
        assert media.create_folder(tx, jo.id, path, NOW)[1]
        node, created = media.create_folder(tx, jo.id, path, NOW)
        assert (node.path, created) == (path, False)
        assert len(tx.scalars(select(Media)).all()) == 51
        assert media.delete(tx, jo.id, "jo/d", NOW) == []
        assert jo.registry_version == 0


@given(st.text(max_size=60))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        path = media.clean_path(text)
    except FiligraneError:
        return
    assert media.clean_path(path) == path == unicodedata.normalize("NFC", path)
    assert not {"", ".", ".."} & set(path.split("/"))


def test_the_longest_paths_are_kept_apart(services: Services) -> None:
    """Random names: nothing of them can be compressed away."""
    random = Random(1)
    names = ["".join(chr(random.randrange(0x4E00, 0x9FA5)) for _ in range(255)) for _ in range(31)]
    with services.database.write() as tx:
        jo = account_of(tx)
        for last in ("a", "b"):
            path = "/".join(["jo", *names, last])
            assert media.put_picture(tx, jo.id, path, draft(), NOW)[1]
            assert media.get(tx, jo.id, path).path == path
            assert not media.put_picture(tx, jo.id, path, draft(), NOW)[1]
        assert media.totals(tx, jo.id) == (2, 10)
    with pytest.raises(IntegrityError), services.database.write() as tx:  # whatever goes wrong, no path is there twice
        tx.add(Media(account_id=jo.id, parent_id=None, path=path, type="folder", created=NOW))
