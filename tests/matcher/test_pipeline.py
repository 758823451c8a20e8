from __future__ import annotations

from typing import Never

import numpy as np
import pytest

from core.errors import InvalidInput
from core.events import SearchAsked
from core.repo import media
from core.services import Services
from matcher.pipeline import Pipeline, Source
from matcher.registry import Registry
from matcher.watermark.embed import embed
from tests.matcher.pictures import captioned, crop, encoded, mirror, photo, resize
from tests.matcher.world import NOW, World, given


@pytest.fixture
def world(services: Services) -> World:
    return World(services)


@pytest.fixture
def pipeline(services: Services) -> Pipeline:
    return Pipeline(Registry(services))


def _needed() -> Never:
    raise AssertionError("the picture was needed")


NEVER = Source(_needed, _needed)


def test_a_copy_makes_a_draft_for_each_page(world: World, pipeline: Pipeline) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    data = encoded(resize(captioned(photo(1)), 0.6), "JPEG")
    drafts = pipeline.matches(world.found(data, pages=("http://www.site.example/a", "http://b.site.example/")), given(data))
    assert [(d.page_url, d.site, d.verdict, d.watermarked, d.key_id) for d in drafts] == [
        ("http://www.site.example/a", "site.example", "copy", False, ""),
        ("http://b.site.example/", "site.example", "copy", False, ""),
    ]
    assert drafts[0].transform is not None
    assert drafts[0].transform[0] == pytest.approx(0.6, abs=0.01)


def test_other_pictures_make_none_and_are_remembered(world: World, pipeline: Pipeline) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    data = encoded(photo(2), "JPEG")
    event = world.found(data)
    assert not pipeline.known(event)
    assert pipeline.matches(event, given(data)) == []
    assert pipeline.known(event)
    assert pipeline.matches(event, NEVER) == []


def test_an_account_without_pictures_needs_no_bytes(world: World, pipeline: Pipeline) -> None:
    assert pipeline.known(world.found(b"x"))
    assert pipeline.matches(world.found(b"x"), NEVER) == []


def test_a_picture_registered_later_is_found_by_the_kept_fingerprint(world: World, pipeline: Pipeline) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    data = encoded(photo(2), "JPEG", quality=60)
    place = world.store([data])[0]
    pipeline.matches(world.found(data, place), given(data))
    world.register("b.jpg", encoded(photo(2), "JPEG"))
    assert [d.verdict for d in pipeline.matches(world.found(data, place), NEVER)] == ["copy"]


def test_a_deleted_picture_is_not_found_any_more(world: World, pipeline: Pipeline) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    data = encoded(photo(1), "JPEG", quality=60)
    assert pipeline.matches(world.found(data), given(data))
    with world.services.database.write() as tx:
        media.delete(tx, world.account.id, f"{world.account.home}/a.jpg", NOW)
    assert pipeline.matches(world.found(data), NEVER) == []


def test_a_marked_copy_is_detected_and_is_a_copy(world: World, pipeline: Pipeline) -> None:
    marked, registration = embed(photo(1))
    world.register("a.jpg", encoded(photo(1), "PNG"), watermark=registration)
    data = encoded(mirror(crop(marked, 0.1, 0.1, 0.8)), "JPEG", quality=70)
    keyed, plain = pipeline.matches(world.found(data), given(data))
    assert (keyed.key_id, keyed.watermarked, keyed.mirrored) == (registration.key_id, True, True)
    assert keyed.p_value is not None
    assert keyed.p_value <= 1e-9
    assert (plain.key_id, plain.watermarked, plain.p_value, plain.key_detected) == ("", False, None, True)


def test_where_a_mark_lies_is_told_in_pixels_of_the_file_however_small_it_was_decoded(world: World, pipeline: Pipeline) -> None:
    marked, registration = embed(photo(1))
    world.register("a.jpg", encoded(photo(1), "PNG"), watermark=registration)
    large = mirror(resize(marked, 4))
    data = encoded(large, "JPEG", quality=80)
    keyed = pipeline.matches(world.found(data), given(data))[0]
    assert keyed.watermarked
    assert keyed.transform is not None
    assert np.reshape(keyed.transform, (3, 3)) == pytest.approx(np.array([[-4, 0, large.shape[1]], [0, 4, 0], [0, 0, 1]]), abs=4)


def test_an_unmarked_copy_of_a_marked_picture_is_only_a_copy(world: World, pipeline: Pipeline) -> None:
    _, registration = embed(photo(1))
    world.register("a.jpg", encoded(photo(1), "PNG"), watermark=registration)
    data = encoded(photo(1), "JPEG", quality=70)
    (draft,) = pipeline.matches(world.found(data), given(data))
    assert (draft.key_id, draft.watermarked, draft.key_detected) == ("", False, False)


def test_shared_sessions_are_matched_against_everybody(world: World, pipeline: Pipeline) -> None:
    other = world.add_account("ben")
    world.register("b.jpg", encoded(photo(3), "JPEG"), account=other)
    data = encoded(photo(3), "JPEG", quality=60)
    assert pipeline.matches(world.found(data), NEVER) == []
    (draft,) = pipeline.matches(world.found(data, shared=True), given(data))
    assert draft.account_id == other.id


def test_p_counts_the_keys_of_the_own_account_alone(world: World, pipeline: Pipeline) -> None:
    marked, registration = embed(photo(1))
    world.register("a.jpg", encoded(photo(1), "PNG"), watermark=registration)
    data = encoded(crop(marked, 0.3, 0.3, 0.4), "JPEG", quality=30)
    (before,) = [draft for draft in pipeline.matches(world.found(data, shared=True), given(data)) if draft.key_id]
    world.register("b.jpg", encoded(photo(1), "PNG"), watermark=embed(photo(1))[1], account=world.add_account("ben"))
    (beside,) = [draft for draft in pipeline.matches(world.found(data, shared=True), given(data)) if draft.key_id]
    world.register("c.jpg", encoded(photo(1), "PNG"), watermark=embed(photo(1))[1])
    (after,) = [draft for draft in pipeline.matches(world.found(data, shared=True), given(data)) if draft.key_id]
    assert before.p_value is not None
    assert 1e-300 < before.p_value <= 1e-9
    assert beside.p_value == before.p_value
    assert after.p_value == pytest.approx(2 * before.p_value, rel=1e-9, abs=0)


def test_a_missing_fingerprint_costs_only_its_own_picture(world: World, pipeline: Pipeline) -> None:
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    world.services.store.delete([info.key for info in world.services.store.list("pictures/") if info.key.endswith("fingerprint")])
    world.register("b.jpg", encoded(photo(2), "JPEG"))
    data = encoded(photo(2), "JPEG", quality=60)
    assert len(pipeline.matches(world.found(data), given(data))) == 1


def _asked(world: World, **more: object) -> SearchAsked:
    fields = {"search": "s", "account": world.account.id, "registry_version": world.version(), "key": "queries/s", "transform": "scale"}
    return SearchAsked(**{**fields, "similar": False, "deadline": NOW, "reply_to": "p", "request_id": "r", **more})  # type: ignore[arg-type]


def test_a_search_tells_keys_verdicts_and_where(world: World, pipeline: Pipeline) -> None:
    marked, registration = embed(photo(1))
    world.register("a.jpg", encoded(photo(1), "PNG"), watermark=registration)
    picture = given(encoded(resize(marked, 0.8), "JPEG", quality=80))
    (keyed, plain), candidates = pipeline.search(_asked(world), picture)
    assert candidates == 1
    assert (keyed.key_id, keyed.verdict, plain.key_id, plain.verdict) == (registration.key_id, "copy", "", "copy")
    assert keyed.p_value is not None
    assert keyed.transform is not None
    assert len(keyed.transform) == 9
    assert plain.why is not None
    assert 10 < plain.why.inliers <= plain.why.correspondences
    assert min(plain.why.likeness, plain.why.ncc) > 0.8
    (unverified,), _ = pipeline.search(_asked(world, similar=True), picture)
    assert (unverified.verdict, unverified.p_value, unverified.why) == (None, None, None)
    assert unverified.score is not None
    assert unverified.score > 5


def test_an_unknown_transform_is_refused(world: World, pipeline: Pipeline) -> None:
    with pytest.raises(InvalidInput):
        pipeline.search(_asked(world, transform="bend"), given(encoded(photo(1), "JPEG")))
