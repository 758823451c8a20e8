"""Files of crawled pictures: who sees them, how others take their place, when they are over; what is still to be looked for."""

from __future__ import annotations

from datetime import timedelta

from core.models import Account, CrawledFile
from core.repo import crawled, crawls, media, pictures, retention
from core.repo.crawled import FileDraft
from core.services import Services
from tests.core.crawled import NOW, add_account, add_session, at


def draft(session: int, key: str, *, offset: int = 0, pictures: int = 10, fresh: bool = False, seen: float = 0) -> FileDraft:
    return FileDraft(session, key, offset, 100, f"{key}{offset}".rjust(64, "0")[-64:], pictures, at(seen), fresh)


def add(services: Services, *drafts: FileDraft, now: float = 0) -> list[int]:
    """The ids of the files, in order."""
    services.database.transact(lambda tx: crawled.add(tx, drafts, at(now)))
    with services.database.read() as tx:
        found = {(row.key, row.offset): row.id for row in tx.query(CrawledFile)}
    return [found[d.key, d.offset] for d in drafts if (d.key, d.offset) in found]


def seen_by(services: Services, account: int) -> list[str]:
    with services.database.read() as tx:
        return [row.key for row in crawled.visible(tx, account)]


def delete(services: Services, account: int, session: int) -> None:
    services.database.transact(lambda tx: crawls.delete_session(tx, account, session, NOW))


def test_an_account_sees_its_own_crawls_and_shared_ones(services: Services) -> None:
    anna, ben = add_account(services, "anna"), add_account(services, "ben")
    own, foreign, shared = add_session(services, anna), add_session(services, ben), add_session(services, ben, shared=True)
    add(services, draft(own.id, "own"), draft(foreign.id, "foreign"), draft(shared.id, "shared"))
    assert seen_by(services, anna) == ["own", "shared"]
    assert seen_by(services, ben) == ["foreign", "shared"]
    with services.database.read() as tx:
        assert crawled.owners(tx, [own.id, shared.id]) == {own.id: (anna, False), shared.id: (ben, True)}


def test_a_row_that_is_written_twice_is_there_once(services: Services) -> None:
    session = add_session(services, add_account(services))
    again = [draft(session.id, "a"), draft(session.id, "a", offset=100)]
    assert add(services, *again) == add(services, *again)
    with services.database.read() as tx:
        assert crawled.totals(tx) == (2, 20, 200)


def test_a_deleted_session_shows_nothing_takes_nothing_and_is_swept(services: Services) -> None:
    owner = add_account(services)
    session = add_session(services, owner)
    add(services, draft(session.id, "a"))
    delete(services, owner, session.id)
    assert seen_by(services, owner) == []
    assert add(services, draft(session.id, "late")) == []
    with services.database.read() as tx:
        assert retention.deleted_sessions(tx, 10) == [session.id]
    services.database.transact(lambda tx: retention.forget_session(tx, session.id, NOW))
    with services.database.read() as tx:
        assert retention.deleted_sessions(tx, 10) == []
        assert crawled.removable(tx, at(1), 10) == ["a"]


def test_one_file_takes_the_place_of_others_at_once_or_not_at_all(services: Services) -> None:
    owner = add_account(services)
    session = add_session(services, owner)
    ids = add(services, draft(session.id, "a"), draft(session.id, "b"))
    assert services.database.transact(lambda tx: crawled.replace(tx, ids, [draft(session.id, "ab")], at(5)))
    assert seen_by(services, owner) == ["ab"]
    assert not services.database.transact(lambda tx: crawled.replace(tx, ids, [draft(session.id, "twice")], at(6)))
    assert seen_by(services, owner) == ["ab"]


def test_an_object_goes_when_the_last_of_its_files_has_been_retired_for_long(services: Services) -> None:
    session = add_session(services, add_account(services))
    first, second, _ = add(services, draft(session.id, "a"), draft(session.id, "a", offset=100), draft(session.id, "b"))
    services.database.transact(lambda tx: crawled.retire(tx, [first], at(0)))
    with services.database.read() as tx:
        assert crawled.removable(tx, at(10), 10) == []
        assert retention.unowned(tx, "crawled/", ["a", "b", "c"]) == ["c"]
    services.database.transact(lambda tx: crawled.retire(tx, [second], at(20)))
    with services.database.read() as tx:
        assert crawled.removable(tx, at(10), 10) == []
        assert crawled.removable(tx, at(21), 10) == ["a"]
    services.database.transact(lambda tx: crawled.forget(tx, ["a"]))
    with services.database.read() as tx:
        assert retention.unowned(tx, "crawled/", ["a", "b"]) == ["a"]


def test_what_nobody_saw_since_is_expired(services: Services) -> None:
    session = add_session(services, add_account(services))
    old, _ = add(services, draft(session.id, "old", seen=0), draft(session.id, "new", seen=100))
    with services.database.read() as tx:
        assert crawled.expired(tx, at(50), 10) == [old]


def test_fresh_files_come_in_order_and_merged_ones_by_session(services: Services) -> None:
    owner = add_account(services)
    one, two = add_session(services, owner), add_session(services, owner)
    add(services, *(draft(session.id, key, offset=n, fresh=True) for key in "ab" for n, session in enumerate((one, two))))
    add(services, *(draft(one.id, f"m{n}", pictures=n) for n in range(1, 5)), draft(two.id, "m9"), now=100)
    rest, busy = at(50), at(200)
    with services.database.read() as tx:
        rows = crawled.fresh(tx, 0, 3)
        assert [(row.key, row.offset) for row in rows] == [("a", 0), ("a", 1), ("b", 0)]
        assert [(row.key, row.offset) for row in crawled.fresh(tx, rows[-1].id, 3)] == [("b", 1)]
        assert crawled.crowded(tx, 100, 3, rest, 10) == [one.id]
        assert crawled.crowded(tx, 100, 4, rest, 10) == []
        assert crawled.crowded(tx, 100, 4, busy, 10) == [one.id]  # nothing came for long
        assert crawled.crowded(tx, 2, 4, busy, 10) == []
        assert [row.key for row in crawled.small_of(tx, one.id, 3)] == ["m1", "m2"]


def register(services: Services, account: int, *names: str) -> None:
    with services.database.write() as tx:
        home = tx.get_one(Account, account).home
        for name in names:
            stem = f"pictures/{account}/{name}"
            drafted = pictures.PictureDraft(
                name.rjust(64, "0"), 4, 3, None, f"{stem}/fingerprint", f"{stem}/preview.jpg", f"{stem}/thumbnail.jpg", 10
            )
            media.put_picture(tx, account, f"{home}/{name}", drafted, NOW)


def test_registrations_are_looked_for_in_order_and_whole_versions_at_a_time(services: Services) -> None:
    owner = add_account(services)
    with services.database.read() as tx:
        assert crawled.behind(tx) == []
    register(services, owner, "a", "b", "c")
    with services.database.write() as tx:
        media.delete(tx, owner, f"{tx.get_one(Account, owner).home}/b", NOW)
    with services.database.read() as tx:
        assert crawled.behind(tx) == [owner]
        version, changes = crawled.unscanned(tx, owner, 2)
    assert [change.picture for change in changes] == [1, 3]
    services.database.transact(lambda tx: crawled.mark_scanned(tx, owner, version))
    services.database.transact(lambda tx: crawled.mark_scanned(tx, owner, 1))  # of who was slower
    with services.database.read() as tx:
        version, changes = crawled.unscanned(tx, owner, 2)
    assert [(change.picture, change.deleted) for change in changes] == [(2, True)]
    services.database.transact(lambda tx: crawled.mark_scanned(tx, owner, version))
    with services.database.read() as tx:
        assert crawled.behind(tx) == []


def test_expiry_reaches_no_file_twice(services: Services) -> None:
    session = add_session(services, add_account(services))
    ids = add(services, draft(session.id, "a"))
    services.database.transact(lambda tx: crawled.retire(tx, ids, at(1)))
    services.database.transact(lambda tx: crawled.retire(tx, ids, at(1) + timedelta(days=1)))
    with services.database.read() as tx:
        assert tx.get_one(CrawledFile, ids[0]).retired == at(1)
        assert crawled.expired(tx, at(50), 10) == []
