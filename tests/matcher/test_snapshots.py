"""G19: a matcher begins with the newest snapshot that is whole, and finds what one that read every fingerprint finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import delete, select, update
from structlog.testing import capture_logs

from core import leases
from core.clock import ManualClock
from core.models import Account, Picture
from core.models import Registration as RegistrationRow
from core.repo import media
from core.services import Services
from core.shards import WHOLE, Shard
from matcher import snapshots
from matcher.registry import Registry
from matcher.watermark.embed import embed
from tests.matcher.pictures import encoded, photo
from tests.matcher.test_registry import Counting, found, seen
from tests.matcher.world import NOW, World

NUMBERS = range(1, 6)


@pytest.fixture
def world(services: Services) -> World:
    made = World(replace(services, clock=ManualClock(NOW)))
    for number in (1, 2, 3):
        made.register(f"{number}.jpg", encoded(photo(number), "JPEG"))
    return made


def fresh(world: World, shard: Shard = WHOLE) -> Registry:
    """As if there were no snapshot."""
    registry = Registry(world.services, shard)
    registry.catch_up_all()
    return registry


def started(world: World) -> tuple[Registry, list[str]]:
    """As a matcher begins; and what it logged."""
    with capture_logs() as lines:
        registry = snapshots.load(world.services, WHOLE)
        registry.catch_up_all()
    return registry, [line["event"] for line in lines]


def taken(world: World) -> str:
    _later(world, 1)
    return snapshots.write(world.services, fresh(world))


def _later(world: World, seconds: float) -> None:
    assert isinstance(world.services.clock, ManualClock)
    world.services.clock.advance(seconds)


def _same(world: World, registry: Registry) -> None:
    """As one that was built now."""
    built = fresh(world)
    account = world.account.id
    assert found(registry, account, NUMBERS) == found(built, account, NUMBERS)
    assert (registry.size(account), registry.size(None)) == (built.size(account), built.size(None))


def test_it_begins_where_the_snapshot_was_without_reading_a_fingerprint(world: World) -> None:
    _, registration = embed(photo(4))
    world.register("4.jpg", encoded(photo(4), "PNG"), watermark=registration)
    taken(world)
    store = Counting(world.services.store)
    registry = snapshots.load(replace(world.services, store=store), WHOLE)  # type: ignore[arg-type]
    registry.catch_up_all()
    assert [key for key in store.reads if key.startswith("pictures/")] == []
    _same(world, registry)
    (candidate,) = registry.candidates(seen(4), world.account.id)
    assert [found.key_id for found in registry.registrations(candidate.id)] == [registration.key_id]
    assert registry.fingerprint(candidate.id).width == photo(4).shape[1]


def test_what_changed_since_is_caught_up(world: World) -> None:
    taken(world)
    world.register("4.jpg", encoded(photo(4), "JPEG"))
    with world.services.database.write() as tx:
        media.delete(tx, world.account.id, f"{world.account.home}/1.jpg", NOW)
    registry, events = started(world)
    assert found(registry, world.account.id, NUMBERS) == [2, 3, 4]
    assert events == ["registry.snapshot_loaded"]
    world.register("5.jpg", encoded(photo(5), "JPEG"))
    registry.catch_up_all()
    _same(world, registry)
    snapshots.write(world.services, registry)
    _same(world, started(world)[0])


def _cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _of_another_version(data: bytes) -> bytes:
    return b"FGX9" + data[4:]


@pytest.mark.parametrize("spoil", [_cut, _flipped, _of_another_version, lambda data: b""])
@pytest.mark.parametrize("part", ["state", "index"])
def test_one_that_is_damaged_is_left_out_for_the_one_before_it(world: World, spoil: Callable[[bytes], bytes], part: str) -> None:
    taken(world)
    world.register("4.jpg", encoded(photo(4), "JPEG"))
    key = f"{taken(world)}/{part}"
    world.services.store.put(key, spoil(world.services.store.get(key)))
    registry, events = started(world)
    assert events == ["registry.snapshot_left_out", "registry.snapshot_loaded"]
    _same(world, registry)


@pytest.mark.parametrize("part", ["state", "index"])
def test_with_none_that_is_whole_it_is_built_from_fingerprints(world: World, part: str) -> None:
    key = f"{taken(world)}/{part}"
    world.services.store.delete([key])
    registry, events = started(world)
    assert events == (["registry.snapshot_left_out"] if part == "index" else []), "without its state it is none"
    _same(world, registry)


def test_one_of_another_number_of_shards_is_not_taken(world: World) -> None:
    _later(world, 1)
    key = snapshots.write(world.services, fresh(world, Shard(0, 2)))
    state = world.services.store.get(f"{key}/state")
    world.services.store.put(f"{key.replace('0-of-2', '0-of-1')}/state", state)
    registry, events = started(world)
    assert events == ["registry.snapshot_left_out"]
    _same(world, registry)


def test_deletions_whose_rows_are_gone_are_noticed(world: World) -> None:
    taken(world)
    with world.services.database.write() as tx:
        media.delete(tx, world.account.id, f"{world.account.home}/1.jpg", NOW)
        gone = tx.scalars(select(Picture.id).where(Picture.deleted.is_(True))).all()
        tx.execute(delete(RegistrationRow).where(RegistrationRow.picture_id.in_(gone)))
        tx.execute(delete(Picture).where(Picture.id.in_(gone)))
    registry, events = started(world)
    assert events == ["registry.snapshot_loaded", "registry.snapshot_differs"]
    assert found(registry, world.account.id, NUMBERS) == [2, 3]
    _same(world, registry)


def test_pictures_that_it_should_have_held_are_noticed(world: World) -> None:
    """Their version is not above the snapshot's, so no change tells of them."""
    taken(world)
    world.register("4.jpg", encoded(photo(4), "JPEG"))
    with world.services.database.write() as tx:
        tx.execute(update(Picture).values(version=1))
        tx.execute(update(Account).where(Account.id == world.account.id).values(registry_version=3))
    registry, events = started(world)
    assert events == ["registry.snapshot_loaded", "registry.snapshot_differs"]
    _same(world, registry)


def test_one_newer_than_a_database_from_a_backup_is_read_anew(world: World) -> None:
    world.register("4.jpg", encoded(photo(4), "JPEG"))
    taken(world)
    with world.services.database.write() as tx:  # as it was before the fourth
        media.delete(tx, world.account.id, f"{world.account.home}/4.jpg", NOW)
        tx.execute(update(Account).where(Account.id == world.account.id).values(registry_version=3))
        tx.execute(update(Picture).values(version=3))
    registry, events = started(world)
    assert events[:2] == ["registry.snapshot_loaded", "registry.newer_than_the_database"]
    _same(world, registry)
    world.register("5.jpg", encoded(photo(5), "JPEG"))
    registry.catch_up_all()
    _same(world, registry)


def test_an_account_that_is_gone_is_dropped(world: World) -> None:
    ben = world.add_account("ben")
    world.register("5.jpg", encoded(photo(5), "JPEG"), account=ben)
    taken(world)
    registry = snapshots.load(world.services, WHOLE)
    assert registry.size(ben.id) == 1
    with world.services.database.write() as tx:
        tx.execute(update(Picture).where(Picture.account_id == ben.id).values(account_id=world.account.id))
        tx.execute(update(Account).where(Account.id == ben.id).values(registry_version=0))
    registry.catch_up_all()
    assert registry.size(ben.id) == 0


def test_after_so_many_changes_or_so_long_one_is_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(world.services)
    writer = snapshots.Writer(world.services, registry)
    assert not writer.look(), "nothing changed"
    registry.catch_up_all()
    assert not writer.look(), "not much, and not for long"
    _later(world, snapshots.PAUSE.total_seconds())
    assert writer.look()
    _later(world, 2 * snapshots.PAUSE.total_seconds())
    assert not writer.look(), "nothing changed since"
    monkeypatch.setattr(snapshots, "CHANGES", 1)
    world.register("4.jpg", encoded(photo(4), "JPEG"))
    registry.catch_up_all()
    assert writer.look()
    _same(world, started(world)[0])


def test_of_several_matchers_one_writes(world: World) -> None:
    registries = [Registry(world.services) for _ in range(2)]
    writers = [snapshots.Writer(world.services, registry) for registry in registries]
    for registry in registries:
        registry.catch_up_all()
    _later(world, snapshots.PAUSE.total_seconds())
    with world.services.database.write() as tx:
        other = leases.acquire(tx, leases.of_job("registry", WHOLE), "another", 60, world.services.clock.now())
    assert other is not None
    assert not writers[0].look()
    _later(world, 61)
    assert writers[1].look(), "its holder is gone"
    world.register("4.jpg", encoded(photo(4), "JPEG"))
    registries[0].catch_up_all()
    _later(world, snapshots.PAUSE.total_seconds() / 4)
    assert not writers[0].look(), "there is one of a moment ago"


def test_old_ones_are_swept(world: World) -> None:
    registry = fresh(world)
    keys = []
    for _ in range(4):
        _later(world, 60)
        keys.append(snapshots.write(world.services, registry))
    other = snapshots.write(world.services, fresh(world, Shard(1, 2)))
    world.services.store.delete([f"{keys[1]}/state"])  # whose writer died
    assert snapshots.sweep(world.services.store, WHOLE, world.services.clock.now()) == 3
    left = {info.key.rpartition("/")[0] for info in world.services.store.list(snapshots.PREFIX)}
    assert left == {*keys[2:], other}
    _later(world, timedelta(days=8).total_seconds())
    snapshots.sweep(world.services.store, WHOLE, world.services.clock.now())
    left = {info.key.rpartition("/")[0] for info in world.services.store.list(snapshots.PREFIX)}
    assert left == set(keys[2:])
