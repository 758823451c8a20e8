"""Sessions and their cycles: whatever happens meanwhile, no cycle is lost or doubled, and no stale worker writes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from core import leases
from core.errors import Conflict, InvalidInput, NotFound, ObjectMissing, StaleLease
from core.models import Outbox, Segment, Static
from core.repo import crawls
from core.services import Services
from tests.core.crawled import NOW, add_account, add_session, at, begin, finish, hold, reload, segment, store


def messages(services: Services) -> int:
    with services.database.read() as tx:
        return tx.scalar(select(func.count()).select_from(Outbox)) or 0


def test_a_new_session_is_pending_and_told_of(services: Services) -> None:
    session = add_session(services, add_account(services), interval=3600.0)
    assert (session.state, session.cycle_count, session.download_delay, session.ctime) == ("pending", 0, 1.0, NOW)
    assert messages(services) == 1
    with services.database.read() as tx:
        assert [row.id for row in crawls.waiting(tx, 10, holder="worker", now=NOW)] == [session.id]


def test_accounts_do_not_see_each_others(services: Services) -> None:
    owner, other = add_account(services), add_account(services, "other")
    session = add_session(services, owner)
    held = hold(services)
    batch = finish(services, held, begin(services, held, session.id))
    with services.database.write() as tx:
        assert crawls.get_session(tx, None, session.id).id == crawls.get_session(tx, owner, session.id).id
        for call in (crawls.pause_session, crawls.resume_session, crawls.run_session, crawls.delete_session, crawls.update_session):
            with pytest.raises(NotFound):
                call(tx, other, session.id, NOW)
        with pytest.raises(NotFound):
            crawls.get_batch(tx, other, batch.id)
        assert not tx.scalars(crawls.sessions_of(other)).all()
        assert not tx.scalars(crawls.batches_of(other, session.id)).all()
        assert [row.id for row in tx.scalars(crawls.batches_of(owner, session.id))] == [batch.id]
        assert crawls.get_batch(tx, owner, batch.id).artifacts[0].name == "images.tar"


def test_a_cycle_from_pending_to_its_batch(services: Services) -> None:
    session = add_session(services, add_account(services), interval=3600.0)
    held = hold(services)
    running = begin(services, held, session.id, at(5))
    assert (running.state, running.cycle_count, running.stime) == ("running", 1, at(5))
    assert begin(services, held, session.id, at(9)).stime == at(5)  # a dead worker's goes on
    store(services, held, running, [("tar", 0), ("tar", 1), ("journal", 0)])
    batch = finish(services, held, running, at(60), offsets={("tar", 0): 0, ("tar", 1): 5})
    done = reload(services, session.id)
    assert (done.state, done.mtime, done.next_due) == ("done", at(60), at(3605))
    assert done.snapshot_key == "frontiers/1/1-1"
    assert (batch.crawl_cycle, batch.account_id) == (1, session.account_id)
    with services.database.read() as tx:
        offsets = {(row.kind, row.seq): row.artifact_offset for row in crawls.segments_of(tx, session.id, 1)}
        assert tx.scalars(select(Static)).one().key == batch.artifacts[0].key
    assert offsets == {("tar", 0): 0, ("tar", 1): 5, ("journal", 0): None}
    with pytest.raises(Conflict):
        begin(services, held, session.id)
    again = finish(services, held, running, at(90), state="failed")  # by who did not learn that it was done
    assert (again.id, [row.id for row in again.artifacts]) == (batch.id, [row.id for row in batch.artifacts])
    assert reload(services, session.id).state == "done"


def test_a_stale_worker_writes_nothing(services: Services) -> None:
    session = add_session(services, add_account(services))
    old = hold(services)
    running = begin(services, old, session.id)
    new = hold(services, restart=True)
    with pytest.raises(StaleLease):
        store(services, old, running, [("tar", 0)])
    with pytest.raises(StaleLease):
        finish(services, old, running)
    with pytest.raises(StaleLease):
        begin(services, old, session.id)
    with services.database.read() as tx:
        assert crawls.segments_of(tx, session.id, 1) == []
    assert reload(services, session.id).state == "running"
    finish(services, new, running)


def test_what_the_owner_did_meanwhile_stays(services: Services) -> None:
    owner = add_account(services)
    held = hold(services)
    for change, state in ((crawls.pause_session, "paused"), (crawls.delete_session, "done")):
        session = add_session(services, owner, interval=60.0)
        running = begin(services, held, session.id)
        with services.database.write() as tx:
            change(tx, owner, session.id, at(1))
        finish(services, held, running, at(2))
        after = reload(services, session.id)
        assert after.state == state
        assert after.deleted or after.next_due is None
        with services.database.read() as tx:
            assert [row.id for row in crawls.waiting(tx, 10, holder="worker", now=NOW)] == []


def test_a_session_paused_and_resumed_loses_no_cycle(services: Services) -> None:
    owner = add_account(services)
    session = add_session(services, owner)
    held = hold(services)
    running = begin(services, held, session.id, at(1))
    store(services, held, running, [("tar", 0)])
    with services.database.write() as tx:
        crawls.pause_session(tx, owner, session.id, at(2))
        assert crawls.resume_session(tx, owner, session.id, at(3)).state == "pending"
    again = begin(services, hold(services, restart=True), session.id, at(4))  # its worker died before the batch
    assert (again.state, again.cycle_count, again.stime) == ("running", 1, at(1))


def test_resumed_while_the_paused_cycle_ends_it_runs_again(services: Services) -> None:
    owner = add_account(services)
    session = add_session(services, owner)
    held = hold(services)
    running = begin(services, held, session.id)
    with services.database.write() as tx:
        crawls.pause_session(tx, owner, session.id, at(1))
        crawls.resume_session(tx, owner, session.id, at(2))
    finish(services, held, running)
    assert reload(services, session.id).state == "pending"
    assert begin(services, held, session.id).cycle_count == 2


def test_run_now(services: Services) -> None:
    owner = add_account(services)
    session = add_session(services, owner, interval=3600.0)
    held = hold(services)
    running = begin(services, held, session.id)
    with services.database.write() as tx, pytest.raises(Conflict) as caught:
        crawls.run_session(tx, owner, session.id, NOW)
    assert caught.value.code == "session_running"
    finish(services, held, running, state="failed", reason="no answer")
    assert (reload(services, session.id).state, reload(services, session.id).reason) == ("failed", "no answer")
    with services.database.write() as tx:
        crawls.run_session(tx, owner, session.id, at(10))
    assert (reload(services, session.id).state, reload(services, session.id).next_due) == ("pending", None)
    assert begin(services, held, session.id).reason is None


def test_changes_take_effect_on_the_next_cycle(services: Services) -> None:
    owner = add_account(services)
    session = add_session(services, owner)
    held = hold(services)
    finish(services, held, begin(services, held, session.id))
    assert reload(services, session.id).next_due is None
    with services.database.write() as tx:
        assert crawls.update_session(tx, owner, session.id, at(10), interval=60.0, max_depth=3).next_due == at(60)
        assert crawls.update_session(tx, owner, session.id, at(10), interval=None, cron="30 4 * * *").next_due == datetime(
            2026, 1, 2, 4, 30, tzinfo=UTC
        )
        assert crawls.update_session(tx, owner, session.id, at(10), cron=None).next_due is None
        with pytest.raises(InvalidInput):
            crawls.update_session(tx, owner, session.id, at(10), state="done")


@pytest.mark.parametrize("cron", ["", "* * * *", "60 * * * *", "0 0 31 2 *", "whenever it rains today", "0 0 * * 8", "0 0 * * 5-2"])
def test_cron_lines_that_mean_nothing_are_refused(services: Services, cron: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        add_session(services, add_account(services), cron=cron)
    assert caught.value.code == "cron_invalid"


@pytest.mark.parametrize(
    ("weekdays", "day"),
    [
        ("0", 4),
        ("7", 4),
        ("1", 5),
        ("sun", 4),
        ("1-5", 2),
        ("6", 3),
        ("0-6", 2),
        ("0,3", 4),
        ("*", 2),
        ("mon-wed", 5),
        ("5-7", 2),
        ("0-2", 4),
    ],
)
def test_weekdays_are_numbered_as_cron_does(services: Services, weekdays: str, day: int) -> None:
    session = add_session(services, add_account(services), cron=f"0 6 * * {weekdays}")
    held = hold(services)
    finish(services, held, begin(services, held, session.id))  # on a Thursday at noon
    assert reload(services, session.id).next_due == datetime(2026, 1, day, 6, tzinfo=UTC)


def test_fields_of_a_cron_line_are_parted_by_any_space(services: Services) -> None:
    session = add_session(services, add_account(services), cron=" 0\t6  * *\t1 ")
    held = hold(services)
    finish(services, held, begin(services, held, session.id))
    assert reload(services, session.id).next_due == datetime(2026, 1, 5, 6, tzinfo=UTC)


def test_a_cycle_longer_than_its_interval_is_due_at_once_and_once(services: Services) -> None:
    session = add_session(services, add_account(services), interval=60.0)
    held = hold(services)
    finish(services, held, begin(services, held, session.id), at(1000))
    assert reload(services, session.id).next_due == at(1000)
    with services.database.write() as tx:
        assert crawls.due(tx, at(1000)) == [session.id]
        assert crawls.due(tx, at(1000)) == []


def test_two_schedulers_wake_a_session_once(services: Services) -> None:
    owner = add_account(services)
    held = hold(services)
    sessions = [add_session(services, owner, interval=60.0) for _ in range(4)]
    for session in sessions:
        finish(services, held, begin(services, held, session.id))
    with services.database.write() as tx:
        crawls.pause_session(tx, owner, sessions[1].id, NOW)
        crawls.delete_session(tx, owner, sessions[2].id, NOW)
        assert crawls.due(tx, at(59)) == []
    before = messages(services)

    def wake(_: int) -> list[int]:
        with services.database.write() as tx:
            return crawls.due(tx, at(60))

    with ThreadPoolExecutor(4) as threads:
        woken = [session_id for ids in threads.map(wake, range(4)) for session_id in ids]
    assert sorted(woken) == [sessions[0].id, sessions[3].id]
    assert messages(services) == before + 2
    assert begin(services, held, sessions[0].id).cycle_count == 2


def waiting(services: Services, limit: int, **asked: Any) -> list[int]:
    with services.database.read() as tx:
        return [row.id for row in crawls.waiting(tx, limit, holder="worker", now=NOW, **asked)]


def test_what_waits_comes_in_no_order(services: Services) -> None:
    owner = add_account(services)
    sessions = [add_session(services, owner).id for _ in range(8)]
    found = [waiting(services, 3) for _ in range(12)]
    assert all(len(set(some)) == 3 for some in found)
    assert len({tuple(some) for some in found}) > 1
    assert sorted(waiting(services, 100)) == sessions


def test_sessions_of_ones_own_domains_come_before_the_others(services: Services) -> None:
    owner = add_account(services)
    sessions = [add_session(services, owner, domain=f"{number}.test").id for number in range(8)]
    with services.database.write() as tx:
        for number, holder in ((3, "worker"), (4, "other")):
            assert leases.acquire(tx, f"{number}.test", holder, 30.0, NOW) is not None
    assert [waiting(services, 1) for _ in range(6)] == [[sessions[3]]] * 6
    assert sorted(waiting(services, 9)) == sorted({*sessions} - {sessions[4]})


def test_only_what_is_asked_for_waits(services: Services) -> None:
    owner = add_account(services)
    sessions = [add_session(services, owner, domain=f"{number}.test").id for number in range(4)]
    assert sorted(waiting(services, 9, beside=sessions[:1], closed={"2.test"})) == [sessions[1], sessions[3]]
    assert waiting(services, 1, only=sessions[2]) == [sessions[2]]


def test_pieces_that_nobody_acknowledged(services: Services) -> None:
    owner = add_account(services)
    session = add_session(services, owner)
    held = hold(services)
    running = begin(services, held, session.id)
    store(services, held, running, [("journal", 0), ("tar", 0)], at(0))
    store(services, held, running, [("journal", 1)], at(50))
    with services.database.write() as tx:
        assert [row.seq for row in crawls.unsent(tx, at(40), 10)] == [0]
        crawls.mark_sent(tx, session.id, 1, 0, at(60))
        assert [row.seq for row in crawls.unsent(tx, at(60), 10)] == [1]
        crawls.delete_session(tx, owner, session.id, at(61))
        assert crawls.unsent(tx, at(70), 10) == []


def test_a_segment_is_found_wherever_its_bytes_are(services: Services) -> None:
    session = add_session(services, add_account(services))
    held = hold(services)
    running = begin(services, held, session.id)
    rows = store(services, held, running, [("tar", 0), ("tar", 1), ("warc", 0)])
    with services.database.write() as tx:
        assert crawls.resolve_segment(tx, session.id, 1, 1) == (rows[1].key, 0)
        crawls.mark_deleted(tx, [rows[0].id])
        for missing in (9, 0):
            with pytest.raises(ObjectMissing):
                crawls.resolve_segment(tx, session.id, 1, missing)
    batch = finish(services, held, running, offsets={("tar", 0): 0, ("tar", 1): 5})
    with services.database.write() as tx:
        assert crawls.resolve_segment(tx, session.id, 1, 1) == (rows[1].key, 0)
        crawls.mark_deleted(tx, [rows[0].id, rows[1].id])
        assert crawls.resolve_segment(tx, session.id, 1, 1) == (batch.artifacts[0].key, 5)


def test_segments_are_kept_while_somebody_needs_them(services: Services) -> None:
    session = add_session(services, add_account(services))
    held = hold(services)
    running = begin(services, held, session.id)
    store(services, held, running, [("tar", 0), ("journal", 0), ("journal", 1)])

    def expired(seconds: float) -> list[tuple[str, int]]:
        with services.database.read() as tx:
            return [(row.kind, row.seq) for row in crawls.expired_segments(tx, at(seconds), 10)]

    assert expired(10**6) == []
    finish(services, held, running, at(100), offsets={("tar", 0): 0})
    with services.database.write() as tx:  # what no artifact holds is never given up
        crawls.store_segments(tx, held, [segment(held, running, "warc", 7)])
    assert expired(100) == []
    assert expired(101) == [("tar", 0)]
    with services.database.write() as tx:
        crawls.mark_sent(tx, session.id, 1, 0, at(1))
    assert expired(101) == [("tar", 0)]  # piece 1 is built from piece 0 too
    with services.database.write() as tx:
        crawls.mark_sent(tx, session.id, 1, 1, at(1))
    assert expired(101) == [("tar", 0), ("journal", 0), ("journal", 1)]


def test_a_segment_is_stored_once(services: Services) -> None:
    session = add_session(services, add_account(services))
    held = hold(services)
    running = begin(services, held, session.id)
    store(services, held, running, [("tar", 0)])
    other = segment(held, running, "tar", 0)
    other.sha256 = "1" * 64
    with pytest.raises(IntegrityError), services.database.write() as tx:
        crawls.store_segments(tx, held, [segment(held, running, "tar", 1), other])
    with services.database.read() as tx:
        assert tx.scalar(select(func.count()).select_from(Segment)) == 1
    store(services, held, running, [("tar", 0), ("journal", 0)])  # by who did not learn that the first was done
    with services.database.read() as tx:
        assert [(row.kind, row.seq) for row in crawls.segments_of(tx, session.id, 1)] == [("journal", 0), ("tar", 0)]
