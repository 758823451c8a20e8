"""What is registered, for all accounts in one index."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace

import pytest

from core.bus import Message
from core.events import MEDIA
from core.models import Picture
from core.objectstore import ObjectStore
from core.repo import accounts, media
from core.services import Services
from core.shards import Shard
from matcher import following
from matcher.copies.features import Fingerprint
from matcher.decode import read_print
from matcher.registry import Registry
from matcher.watermark.embed import embed
from tests.matcher.pictures import encoded, photo
from tests.matcher.world import NOW, World, polled


@pytest.fixture
def world(services: Services) -> World:
    return World(services)


def seen(number: int) -> Fingerprint:
    """Of a copy of the picture."""
    return read_print(encoded(photo(number), "JPEG", quality=60))


def found(registry: Registry, account: int | None, numbers: Iterable[int]) -> list[int]:
    return [number for number in numbers if registry.candidates(seen(number), account)]


class Counting:
    """A store that counts what is read of it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.reads: list[str] = []

    def get(self, key: str) -> bytes:
        self.reads.append(key)
        return self._store.get(key)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


def test_accounts_are_asked_one_by_one_or_all_at_once(world: World) -> None:
    ben = world.add_account("ben")
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    world.register("b.jpg", encoded(photo(2), "JPEG"), account=ben)
    registry = Registry(world.services)
    registry.catch_up_all()
    assert found(registry, world.account.id, (1, 2)) == [1]
    assert found(registry, ben.id, (1, 2)) == [2]
    assert found(registry, None, (1, 2)) == [1, 2]
    assert [c.group for c in registry.candidates(seen(2), None)] == [ben.id]
    assert (registry.size(world.account.id), registry.size(ben.id), registry.size(None)) == (1, 1, 2)


def test_a_change_is_there_once_its_message_is(world: World) -> None:
    registry = Registry(world.services)
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    registry.catch_up_all()
    before = registry.state(world.account.id)
    world.register("b.jpg", encoded(photo(2), "JPEG"))
    following.hear(registry, polled(world.services, MEDIA))
    assert found(registry, world.account.id, (1, 2)) == [1, 2]
    assert registry.state(world.account.id) != before
    with world.services.database.write() as tx:
        media.delete(tx, world.account.id, f"{world.account.home}/a.jpg", NOW)
    registry.catch_up(world.account.id, world.version())
    assert found(registry, world.account.id, (1, 2)) == [2]


def test_messages_that_cannot_be_read_or_are_of_nobody_change_nothing(world: World) -> None:
    registry = Registry(world.services)
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    following.hear(registry, [Message(MEDIA, 0, 0, "1", b"no message", {}), *polled(world.services, MEDIA)])
    assert registry.size(None) == 0, "nobody asked for this account yet"


def test_news_are_heard_on_a_thread_until_it_is_to_stop(world: World) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    registry, stop = Registry(world.services), threading.Event()
    registry.catch_up_all()
    thread = threading.Thread(target=following.run, args=(world.services, registry, stop))
    thread.start()
    try:
        for number in range(2, 50):  # until it listens
            world.register(f"{number}.jpg", encoded(photo(2 + number % 2), "JPEG"))
            stop.wait(0.1)
            if registry.size(None) > 1:
                break
    finally:
        stop.set()
        thread.join()
    assert registry.size(None) > 1


def test_a_candidates_fingerprint_is_read_from_the_store_once(world: World) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    store = Counting(world.services.store)
    registry = Registry(replace(world.services, store=store))  # type: ignore[arg-type]
    registry.catch_up_all()
    (candidate,) = registry.candidates(seen(1), None)
    store.reads.clear()
    first, second = registry.fingerprint(candidate.id), registry.fingerprint(candidate.id)
    assert (first.points == second.points).all()
    assert len(store.reads) == 1
    with pytest.raises(KeyError):
        registry.fingerprint(candidate.id + 1)


def test_registrations_are_those_of_marked_pictures(world: World) -> None:
    _, registration = embed(photo(1))
    marked = world.register("a.jpg", encoded(photo(1), "PNG"), watermark=registration)
    world.register("b.jpg", encoded(photo(2), "JPEG"))
    registry = Registry(world.services)
    registry.catch_up_all()
    with world.services.database.read() as tx:
        pictures = {picture.id: marked.media_id for picture in tx.query(Picture)}
    keys = [found.key_id for picture in pictures for found in registry.registrations(picture)]
    assert keys == [registration.key_id]


def test_shards_hold_every_picture_once(world: World) -> None:
    for number in range(4):
        world.register(f"{number}.jpg", encoded(photo(number), "JPEG"))
    shards = [Registry(world.services, Shard(number, 3)) for number in range(3)]
    for shard in shards:
        shard.catch_up_all()
    assert sum(shard.size(None) for shard in shards) == 4
    assert {number for shard in shards for number in found(shard, None, range(4))} == {0, 1, 2, 3}


def test_an_account_that_is_gone_is_empty(world: World) -> None:
    registry = Registry(world.services)
    registry.catch_up(99, 1)
    assert registry.size(99) == 0
    with world.services.database.read() as tx:
        assert 99 not in accounts.registry_versions(tx)
