"""The keys of candidates: all are tried, with the small picture that they share; p counts each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import select

from core.models import Picture
from core.models import Registration as Row
from core.repo import media
from core.services import Services
from matcher.pipeline import Pipeline
from matcher.pixels import U8
from matcher.registrar import Registered, here, register_mark
from matcher.registry import Registry
from matcher.watermark.embed import embed
from matcher.watermark.registration import Registration
from tests.matcher.pictures import encoded, photo
from tests.matcher.test_registry import Counting
from tests.matcher.world import NOW, World, given


@pytest.fixture
def world(services: Services) -> World:
    return World(services)


def put(world: World, name: str, mark: Registration) -> Registered:
    return register_mark(world.services, world.account.id, f"{world.account.home}/{name}", mark, here, disk_usage=1)


def found(world: World, pipeline: Pipeline, data: bytes) -> list[tuple[str, float | None, int | None]]:
    return [(d.key_id, d.p_value, d.payload) for d in pipeline.matches(world.found(data), given(data)) if d.watermarked]


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("filigrane_matcher_keys_total", {"outcome": outcome}) or 0.0


def test_keys_that_came_as_registrations_are_found_with_their_numbers(world: World) -> None:
    full = embed(photo(1))
    numbered = embed(photo(1), payload=4711, transactional=True)
    for name, (_, mark) in (("full", full), ("numbered", numbered)):
        put(world, name, mark)
    pipeline = Pipeline(Registry(world.services))
    for (rgb, mark), payload in ((full, None), (numbered, 4711)):
        ((key_id, p_value, number),) = found(world, pipeline, encoded(rgb, "JPEG", quality=70))
        assert (key_id, number) == (mark.key_id, payload)
        assert p_value is not None
        assert p_value <= 1e-9


def test_a_transactional_key_is_found_when_the_one_with_the_small_picture_is_gone(world: World) -> None:
    put(world, "full", embed(photo(1))[1])
    rgb, mark = embed(photo(1), transactional=True)
    put(world, "again", mark)
    with world.services.database.write() as tx:
        keys = media.delete(tx, world.account.id, f"{world.account.home}/full", NOW)
    world.services.store.delete(keys)
    assert [key for key, _, _ in found(world, Pipeline(Registry(world.services)), encoded(rgb, "JPEG", quality=70))] == [mark.key_id]


def test_each_key_that_is_tried_counts_in_p(world: World) -> None:
    rgb, first = embed(photo(1))
    put(world, "0", first)
    alone = p_of(world, first, rgb)
    for number in range(1, 10):
        put(world, str(number), embed(photo(1), transactional=True)[1])
    put(world, "secret", embed(photo(1), secret="sesame", transactional=True)[1])
    assert p_of(world, first, rgb) == pytest.approx(10 * alone, rel=1e-9, abs=0)


def p_of(world: World, mark: Registration, rgb: U8) -> float:
    """The p of a mark at a third of its strength, which a double can hold."""
    blended = (0.35 * rgb.astype(float) + 0.65 * photo(1)).round().astype(np.uint8)
    hits = found(world, Pipeline(Registry(world.services)), encoded(blended, "JPEG", quality=70))
    (p_value,) = [p for key, p, _ in hits if key == mark.key_id]
    assert p_value is not None
    return p_value


def test_marks_with_a_passphrase_are_counted_and_left_out(world: World) -> None:
    rgb, mark = embed(photo(1), secret="sesame")
    put(world, "secret", mark)
    tried, secret = counted("tried"), counted("secret")
    assert found(world, Pipeline(Registry(world.services)), encoded(rgb, "JPEG", quality=70)) == []
    assert (counted("tried"), counted("secret")) == (tried, secret + 1)


def test_registrations_are_read_once_and_the_small_picture_is_there_once(world: World) -> None:
    put(world, "0", embed(photo(1))[1])
    marks = [embed(photo(1), transactional=True)[1] for _ in range(20)]
    for number, mark in enumerate(marks):
        put(world, f"again{number}", mark)
    counting = Counting(world.services.store)
    registry = Registry(replace(world.services, store=counting))  # type: ignore[arg-type]
    registry.catch_up(world.account.id, world.version())
    (picture,) = {row.picture_id for row in registered(world)}
    first, again = registry.registrations(picture), registry.registrations(picture)
    assert {mark.key_id for mark in marks} < {mark.key_id for mark in first}
    assert len(first) == 21
    assert len({id(mark.small) for mark in first}) == 1
    assert again == first
    assert len([key for key in counting.reads if key.startswith("registrations/")]) == 21
    # what is damaged costs only itself
    put(world, "late", embed(photo(1), transactional=True)[1])
    last = sorted(row.lmk_key for row in registered(world) if row.lmk_key)[-1]
    world.services.store.put(str(last), b"damaged")
    registry = Registry(world.services)
    registry.catch_up(world.account.id, world.version())
    assert len(registry.registrations(picture)) == 21


def test_a_small_picture_that_is_none_costs_no_other_candidate(world: World) -> None:
    put(world, "mine", embed(photo(1))[1])
    with world.services.database.read() as tx:
        (small,) = tx.scalars(select(Picture.small_key)).all()
    rgb, mark = embed(photo(1))
    other = world.add_account("ben")
    world.register("his", encoded(photo(1), "PNG"), watermark=mark, account=other)
    world.services.store.put(str(small), b"no picture")
    data = encoded(rgb, "JPEG", quality=70)
    drafts = Pipeline(Registry(world.services)).matches(world.found(data, shared=True), given(data))
    assert [draft.key_id for draft in drafts if draft.watermarked] == [mark.key_id]


def registered(world: World) -> Sequence[Row]:
    with world.services.database.read() as tx:
        return tx.scalars(select(Row)).all()
