"""What may go: only what no row names; what a deleted session left."""

from __future__ import annotations

from datetime import timedelta

import pytest

from core.models import Account, Static
from core.repo import crawls, media, pictures, retention
from core.services import Services
from tests.core.crawled import NOW, add_account, add_session, at, begin, finish, hold, store


def unowned(services: Services, prefix: str, *keys: str) -> list[str]:
    with services.database.read() as tx:
        return retention.unowned(tx, prefix, keys)


def put(services: Services, account_id: int, name: str, nonce: str, key_id: str = "") -> str:
    """A picture at a path, with a registration's bytes when it has a key; the path."""
    prefix = f"pictures/{account_id}/{'f' * 64}/{nonce}"
    lmk = f"registrations/{account_id}/{nonce}.lmk" if key_id else None
    draft = pictures.PictureDraft(
        "f" * 64, 4, 3, None, f"{prefix}/fingerprint", f"{prefix}/preview.jpg", f"{prefix}/thumbnail.jpg", 10, key_id, lmk
    )
    with services.database.write() as tx:
        path = f"{tx.get_one(Account, account_id).home}/{name}"
        media.put_picture(tx, account_id, path, draft, NOW)
    return path


def test_what_a_row_names_is_owned(services: Services) -> None:
    session = add_session(services, add_account(services))
    held = hold(services)
    running = begin(services, held, session.id)
    (row,) = store(services, held, running, [("tar", 0)])
    assert unowned(services, "crawl/", row.key, "crawl/1/1/1/9.tar") == ["crawl/1/1/1/9.tar"]
    batch = finish(services, held, running)
    assert unowned(services, "batches/", batch.artifacts[0].key, "batches/x") == ["batches/x"]
    assert unowned(services, "frontiers/", "frontiers/1/1-1", "frontiers/1/0-1") == ["frontiers/1/0-1"]
    with services.database.write() as tx:
        crawls.mark_deleted(tx, [row.id])
    assert unowned(services, "crawl/", row.key) == [row.key]  # the artifact has its bytes now
    assert unowned(services, "queries/", "queries/1") == ["queries/1"]


def test_a_pictures_objects_are_owned_while_it_is_registered(services: Services) -> None:
    owner = add_account(services)
    plain, keyed = put(services, owner, "a.jpg", "one"), put(services, owner, "b.jpg", "two", "k" * 8)
    prefix = f"pictures/{owner}/{'f' * 64}"
    fingerprint, lmk = f"{prefix}/one/fingerprint", f"registrations/{owner}/two.lmk"
    never = [f"{prefix}/three/fingerprint", f"{prefix}/two/fingerprint"]  # of a put that died, and of a picture that was there already
    assert unowned(services, "pictures/", fingerprint, *never) == never
    assert unowned(services, "registrations/", lmk, "registrations/x") == ["registrations/x"]
    with services.database.write() as tx:
        media.delete(tx, owner, keyed, NOW)
    assert unowned(services, "registrations/", lmk) == [lmk]
    assert unowned(services, "pictures/", fingerprint) == []
    with services.database.write() as tx:
        media.delete(tx, owner, plain, NOW)
    assert unowned(services, "pictures/", fingerprint) == [fingerprint]


@pytest.mark.parametrize("prefix", retention.PREFIXES)
def test_without_rows_nothing_is_owned(services: Services, prefix: str) -> None:
    keys = [f"{prefix}{number}" for number in range(500)]
    assert unowned(services, prefix, *keys) == keys
    assert unowned(services, prefix) == []


def test_addresses_of_artifacts_and_pictures_do_not_expire_alone(services: Services) -> None:
    owner = add_account(services)
    put(services, owner, "a.jpg", "one")
    held = hold(services)
    session = add_session(services, owner)
    finish(services, held, begin(services, held, session.id))
    with services.database.write() as tx:
        tx.query(Static).update({Static.expires: NOW})
        lone = Static(key="pictures/1/x", content_type="image/jpeg", filename="x", created=NOW, expires=at(10))
        tx.add(lone)
        tx.flush()
        assert retention.expired_statics(tx, at(9), 10) == []
        assert retention.expired_statics(tx, at(10), 10) == [lone]
        retention.forget_statics(tx, [lone.id])
        assert retention.expired_statics(tx, at(10) + timedelta(days=99), 10) == []


def test_a_deleted_session_is_forgotten_again_when_its_worker_was_late(services: Services) -> None:
    owner = add_account(services)
    kept, gone = add_session(services, owner), add_session(services, owner)
    held = hold(services)
    for session in (kept, gone):
        running = begin(services, held, session.id)
        store(services, held, running, [("tar", 0)])
        finish(services, held, running)

    def deleted() -> list[int]:
        with services.database.read() as tx:
            return retention.deleted_sessions(tx, 10)

    assert deleted() == []
    with services.database.write() as tx:
        crawls.delete_session(tx, owner, gone.id, NOW)
    assert deleted() == [gone.id]
    with services.database.write() as tx:
        retention.forget_session(tx, gone.id, NOW)
    assert deleted() == []
    store(services, held, running, [("tar", 1)])  # the worker has not noticed yet
    assert deleted() == [gone.id]
    with services.database.write() as tx:
        retention.forget_session(tx, gone.id, NOW)
        assert [row.seq for row in crawls.segments_of(tx, kept.id, 1)] == [0]
        assert len(tx.scalars(crawls.batches_of(owner)).all()) == 1
        assert tx.query(Static).count() == 1
    assert deleted() == []
