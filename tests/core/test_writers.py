"""Many writers at once on PostgreSQL, where nobody is alone: nothing is lost, doubled or seen in the wrong order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from random import Random
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core import outbox
from core.bus import Outgoing
from core.database import Database
from core.errors import Conflict, NotFound
from core.events import MEDIA, MediaChanged, decode
from core.models import Match, MatchMedia, Media, Outbox, Picture
from core.repo import accounts, crawls, matches, media
from core.repo.matches import MatchDraft
from core.repo.pictures import PictureDraft
from core.services import Services
from tests.core.crawled import NOW, add_account, add_session, begin, hold, reload

pytestmark = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
T = TypeVar("T")
WRITERS = 4


def at_once(work: Callable[[int], T], count: int = WRITERS) -> list[T]:
    """What the work gives to so many threads that begin together."""
    together = threading.Barrier(count)

    def run(number: int) -> T:
        together.wait(30)
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


def picture(pixels: str) -> PictureDraft:
    return PictureDraft(pixels, 4, 3, None, f"pictures/{pixels}/f", f"pictures/{pixels}/p", f"pictures/{pixels}/t", 10)


def find(account_id: int, node: Media, page: int) -> MatchDraft:
    assert node.registration is not None
    return MatchDraft(
        account_id=account_id,
        picture_id=node.registration.picture_id,
        key_id="",
        sha256="0" * 64,
        md5="0" * 32,
        page_url=f"http://b.example/{page}",
        site="b.example",
        query_url="http://b.example/x.jpg",
        session_id=1,
        watermarked=False,
        first_seen=NOW,
        request_id="r",
    )


def test_a_user_name_is_given_once(database: Database) -> None:
    def create(number: int) -> bool:
        try:
            database.transact(lambda tx: accounts.create(tx, b"secret", "jo", email=str(number), now=NOW))
        except Conflict:
            return False
        return True

    assert sum(at_once(create)) == 1


def test_a_path_is_there_once_and_its_parents_too(services: Services) -> None:
    account = add_account(services)

    def put(number: int) -> bool:
        return services.database.transact(lambda tx: media.put_picture(tx, account, "owner/a/b/c.jpg", picture(f"p{number}"), NOW))[1]

    assert sum(at_once(put)) == 1
    assert sum(at_once(lambda _: services.database.transact(lambda tx: media.create_folder(tx, account, "owner/x/y", NOW))[1])) == 1
    with services.database.read() as tx:
        paths = sorted(tx.scalars(select(Media.path)))
        assert paths == ["owner", "owner/a", "owner/a/b", "owner/a/b/c.jpg", "owner/x", "owner/x/y"]
        versions = [tx.get_one(Picture, change.picture).version for change in media.changes(tx, account, 0)]
        assert versions == sorted(versions)
        assert accounts.by_id(tx, account).registry_version == WRITERS


actions = st.lists(st.tuples(st.sampled_from(["put", "delete", "move", "folder"]), st.integers(0, 3), st.integers(0, 3)), max_size=8)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(actions, min_size=2, max_size=3))
def test_the_tree_stays_a_tree(services: Services, scripts: list[list[tuple[str, int, int]]]) -> None:
    """Whoever does what at the same time: each node lies where its parent says, and refusals are the API's own."""
    with services.database.write() as tx:
        name = f"jo{tx.scalar(select(func.count()).select_from(Media))}"
        account = accounts.create(tx, b"secret", name, now=NOW)[0].id

    def act(tx: Session, what: str, path: str, to: str) -> None:
        if what == "put":
            media.put_picture(tx, account, to, picture(f"{name}{to}"), NOW)
        elif what == "delete":
            media.delete(tx, account, path, NOW)
        elif what == "move":
            media.move(tx, account, path, f"{to}/m", NOW)
        else:
            media.create_folder(tx, account, path, NOW)

    def run(number: int) -> None:
        for what, one, other in scripts[number]:
            with suppress(Conflict, NotFound):
                to = f"{name}/{other}" if what == "move" else f"{name}/{one}/{other}"
                services.database.transact(partial(act, what=what, path=f"{name}/{one}", to=to))

    at_once(run, len(scripts))
    with services.database.read() as tx:
        nodes = {node.id: node for node in tx.scalars(select(Media).where(Media.account_id == account))}
        for node in nodes.values():
            if node.parent_id is not None:
                assert nodes[node.parent_id].type == "folder"
                assert node.path.rpartition("/")[0] == nodes[node.parent_id].path
        used = {node.registration.picture_id for node in nodes.values() if node.registration is not None}
        assert used == {row.id for row in tx.scalars(select(Picture).where(Picture.account_id == account)) if not row.deleted}


def test_who_reads_changes_up_to_a_version_misses_none(services: Services) -> None:
    """A registry is built from `changes` alone, while others write: in the end it is what the database says."""
    account = add_account(services)
    done = threading.Event()
    seen: dict[int, int] = {}

    def follow() -> None:
        version = 0
        while True:
            last = done.is_set()
            with services.database.read() as tx:
                reached = accounts.by_id(tx, account).registry_version
                changes = media.changes(tx, account, version)
            assert all(version < change.version <= reached for change in changes)
            seen.update((change.picture, change.version) for change in changes)
            version = reached
            if last:
                return

    def write(number: int) -> None:
        for turn in range(15):
            put = partial(
                media.put_picture, account_id=account, path=f"owner/{number}.jpg", draft=picture(f"p{number}-{turn % 5}"), now=NOW
            )
            services.database.transact(put)

    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(follow)
        at_once(write)
        done.set()
        following.result()
    with services.database.read() as tx:
        assert seen == {row.id: row.version for row in tx.scalars(select(Picture))}


def test_matchers_that_find_the_same_and_an_owner_who_deletes(services: Services) -> None:
    """No match is there twice, none without media, and nobody waits for ever."""
    account = add_account(services)
    with services.database.write() as tx:
        nodes = [media.put_picture(tx, account, f"owner/{number}.jpg", picture(f"p{number}"), NOW)[0] for number in range(6)]
    drafts = [find(account, node, page) for node in nodes for page in range(4)]

    def record(number: int) -> int:
        random, new = Random(number), 0
        for _ in range(6):
            new += len(services.database.transact(partial(matches.record, drafts=random.sample(drafts, 12), now=NOW)))
        return new

    def delete() -> int:
        for number in range(3):
            services.database.transact(partial(media.delete, account_id=account, path=f"owner/{number}.jpg", now=NOW))
        return 0

    new = at_once(lambda number: record(number) if number else delete())
    with services.database.read() as tx:
        identities = list(tx.execute(select(Match.picture_id, Match.sha256, Match.page_url)))
        assert len(identities) == len(set(identities)) == sum(new)
        kept = {node.registration.picture_id for node in nodes[3:] if node.registration is not None}
        linked = set(tx.scalars(select(MatchMedia.match_id)))
        assert {row.id for row in tx.scalars(select(Match)) if row.picture_id in kept} == linked


def test_the_bus_ends_with_the_newest_state_whoever_drains(services: Services) -> None:
    account = add_account(services)

    def change(tx: Session, number: int, turn: int) -> None:
        if turn % 4 == 3:
            media.delete(tx, account, f"owner/{number}.jpg", NOW)
        else:
            media.put_picture(tx, account, f"owner/{number}.jpg", picture("same"), NOW)

    def write_and_drain(number: int) -> None:
        for turn in range(8):
            services.database.transact(partial(change, number=number, turn=turn))
            outbox.drain(services)

    at_once(write_and_drain)
    while outbox.drain(services):
        pass
    with services.database.read() as tx:
        assert tx.scalar(select(func.count()).select_from(Outbox)) == 0
        (newest,) = media.changes(tx, account, 0)
    follower = services.bus.follow(MEDIA, "earliest")
    last = decode(follower.poll(0)[-1].value)
    follower.close()
    assert isinstance(last, MediaChanged)
    assert last == newest


def test_who_claimed_a_message_and_died_leaves_it_to_the_next(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sends an old state after B has sent the new one, and dies before it has looked again: its row is still there."""
    account = add_account(services)
    with services.database.write() as tx:
        media.put_picture(tx, account, "owner/a.jpg", picture("p"), NOW)
    publish = services.bus.publish

    def overtaken_and_killed(messages: Sequence[Outgoing]) -> None:
        monkeypatch.setattr(services.bus, "publish", publish)
        services.database.transact(lambda tx: media.delete(tx, account, "owner/a.jpg", NOW))
        assert outbox.drain(services) == 1
        publish(messages)
        raise KeyboardInterrupt

    monkeypatch.setattr(services.bus, "publish", overtaken_and_killed)
    with pytest.raises(KeyboardInterrupt):
        outbox.drain(services)
    assert outbox.drain(services) == 1
    follower = services.bus.follow(MEDIA, "earliest")
    last = decode(follower.poll(0)[-1].value)
    follower.close()
    assert isinstance(last, MediaChanged)
    assert last.deleted


def test_a_pause_is_not_lost_to_a_cycle_that_begins_or_a_schedule(services: Services) -> None:
    account = add_account(services)
    held = hold(services)

    def race(session_id: int) -> None:
        def act(number: int) -> None:
            with suppress(Conflict):
                if number == 0:
                    services.database.transact(lambda tx: crawls.pause_session(tx, account, session_id, NOW))
                elif number == 1:
                    begin(services, held, session_id)
                else:
                    services.database.transact(lambda tx: crawls.update_session(tx, account, session_id, NOW, interval=60.0))

        at_once(act, 3)

    for _ in range(5):
        session = add_session(services, account)
        race(session.id)
        assert reload(services, session.id).state == "paused"
        with services.database.read() as tx:
            assert crawls.get_session(tx, account, session.id).interval == 60.0
