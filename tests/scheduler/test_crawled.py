"""Files of crawled pictures are merged, expire and go; cut anywhere, nothing is lost or searched twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.errors import Unavailable
from core.models import CrawledFile
from core.repo import crawled as repo
from core.repo import crawls
from core.services import Services
from core.settings import Settings
from matcher.copies.features import Fingerprint, fingerprint
from matcher.crawled import file
from matcher.crawled.library import CrawledLibrary
from matcher.crawled.writer import CrawledWriter
from scheduler import crawled, sweep
from tests.matcher.pictures import photo
from tests.matcher.world import World

HOUR, DAYS = timedelta(hours=1), 30


@pytest.fixture
def manual() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def world(tmp_path: Path, manual: ManualClock) -> Iterator[World]:
    with Services.open(Settings(data=tmp_path / "data", crawled_days=DAYS), clock=manual) as opened:
        yield World(opened)


@lru_cache
def print_of(seed: int) -> Fingerprint:
    return fingerprint(photo(seed, 120, 90))


def crawl(world: World, *seeds: int, sessions: Sequence[int] = ()) -> None:
    """A matcher's poll that found these pictures, in each of the sessions."""
    found = [world.found(bytes([seed]), session=session) for session in sessions or [world.session] for seed in seeds]
    writer = CrawledWriter(world.services)
    writer.store([writer.found(event, print_of(seed)) for event, seed in zip(found, [*seeds] * len(found), strict=False)])


def rows(world: World) -> list[CrawledFile]:
    with world.services.database.read() as tx:
        return repo.visible(tx, world.account.id)


def pictures(world: World) -> Counter[tuple[int, str]]:
    """(session, digest) -> in how many files."""
    opened = CrawledLibrary(world.services).visible(world.account.id)
    return Counter((file.row.session_id, bytes(digest).hex()) for file in opened for digest in file.pictures.digests)


def objects(world: World) -> list[str]:
    return [info.key for info in world.services.store.list("crawled/")]


def test_what_matchers_stored_becomes_one_file_for_each_session(world: World) -> None:
    other = world.add_session(world.account)
    for seeds in ((1, 2), (2, 3)):
        crawl(world, *seeds, sessions=(world.session, other))
    assert len(objects(world)) == 2
    before = pictures(world)
    assert list(crawled.merge(world.services)) == [2, 2]
    assert sorted((row.session_id, row.pictures, row.fresh) for row in rows(world)) == [(world.session, 3, False), (other, 3, False)]
    assert pictures(world) == dict.fromkeys(before, 1)
    assert list(crawled.merge(world.services)) == []


def test_old_objects_stay_for_who_has_just_read_the_rows(world: World, manual: ManualClock) -> None:
    crawl(world, 1)
    list(crawled.merge(world.services))
    assert list(crawled.remove(world.services)) == []
    assert len(objects(world)) == 2
    manual.advance(3601)
    assert list(crawled.remove(world.services)) == [1]
    assert objects(world) == [row.key for row in rows(world)]


def test_files_of_one_size_become_one_and_a_session_at_rest_has_one(world: World, manual: ManualClock) -> None:
    for seed in range(1, 9):
        crawl(world, seed)
        list(crawled.merge(world.services))
        assert len(rows(world)) == (seed if seed < crawled.FAN else 1)
    crawl(world, 9)
    list(crawled.merge(world.services))
    assert sorted(row.pictures for row in rows(world)) == [1, 8]
    manual.advance(3601)
    assert list(crawled.merge(world.services)) == [2]
    assert [row.pictures for row in rows(world)] == [9]
    assert set(pictures(world).values()) == {1}


def test_of_a_session_whose_files_went_meanwhile_nothing_is_merged() -> None:
    assert crawled.plan([], datetime.now(UTC)) == []


def test_no_file_grows_beyond_what_a_merge_may_hold(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crawled, "MOST", 8)
    for seed in range(1, 25):
        crawl(world, seed)
        list(crawled.merge(world.services))
    assert max(row.pictures for row in rows(world)) <= 8
    assert len(pictures(world)) == 24


def test_what_came_in_is_merged_in_pieces_that_fit_into_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    crawl(world, 1)
    monkeypatch.setattr(crawled, "_BYTES", rows(world)[0].length + 1)
    for seed in (2, 3, 4, 5):
        crawl(world, seed)
    assert list(crawled.merge(world.services)) == [2, 2, 1]
    assert set(pictures(world).values()) == {1}


def test_a_merge_that_is_cut_is_done_again(world: World, monkeypatch: pytest.MonkeyPatch, manual: ManualClock) -> None:
    crawl(world, 1)
    crawl(world, 2)
    before = pictures(world)

    def cut(*_: object) -> bool:
        raise Unavailable("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(repo, "replace", cut)
        with pytest.raises(Unavailable):
            list(crawled.merge(world.services))
    assert pictures(world) == before
    assert len(objects(world)) == 3
    assert list(crawled.merge(world.services)) == [2]
    assert pictures(world) == before
    manual.advance(2 * 86400)  # objects without a row
    list(sweep.orphans(world.services))
    list(crawled.remove(world.services))
    assert objects(world) == [row.key for row in rows(world)]


def test_of_two_merges_at_once_one_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    crawl(world, 1)
    crawl(world, 2)
    merged = file.merged

    def second(*given: object, **named: object) -> object:
        monkeypatch.setattr(crawled, "merged", merged)
        list(crawled.merge(world.services))
        return merged(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(crawled, "merged", second)
    assert list(crawled.merge(world.services)) == [0]
    assert [row.pictures for row in rows(world)] == [2]


def test_pictures_expire_when_no_page_shows_them_any_more(world: World, manual: ManualClock) -> None:
    crawl(world, 1, 2)
    list(crawled.merge(world.services))
    manual.advance(20 * 86400)
    crawl(world, 2)
    list(crawled.merge(world.services))
    manual.advance(15 * 86400)
    list(crawled.merge(world.services))  # at rest: one file, without what is over
    assert [digest for _, digest in pictures(world)] == [world.found(bytes([2])).sha256]
    manual.advance(20 * 86400)
    assert list(crawled.remove(world.services)) != []
    assert rows(world) == []
    manual.advance(3601)
    list(crawled.remove(world.services))
    assert objects(world) == []


def test_a_writer_gives_the_features_again_before_they_are_over(world: World, manual: ManualClock) -> None:
    event, writer = world.found(b"\1"), CrawledWriter(world.services)
    assert writer.wants(event)
    writer.store([writer.found(event, print_of(1))])
    assert not writer.wants(event)
    assert writer.wants(world.found(b"\1", session=2))
    manual.advance(DAYS / 2 * 86400 + 1)
    assert writer.wants(event)


def test_a_deleted_session_takes_its_files_along(world: World, manual: ManualClock) -> None:
    other = world.add_session(world.account)
    crawl(world, 1, sessions=(world.session, other))
    with world.services.database.write() as tx:
        crawls.delete_session(tx, world.account.id, other, manual.now())
    list(sweep.deleted_sessions(world.services))
    list(crawled.merge(world.services))
    manual.advance(3601)
    list(crawled.remove(world.services))
    assert [row.session_id for row in rows(world)] == [world.session]
    assert objects(world) == [row.key for row in rows(world)]


def test_what_cannot_be_read_is_left_out_and_given_up_after_a_day(world: World, manual: ManualClock) -> None:
    crawl(world, 1)
    crawl(world, 2)
    (lost, _) = rows(world)
    world.services.store.put(lost.key, b"other bytes")
    assert list(crawled.merge(world.services)) == [1]
    assert {row.key for row in rows(world)} > {lost.key}
    assert list(crawled.merge(world.services)) == [0]
    manual.advance(86401)
    list(crawled.merge(world.services))
    assert [row.pictures for row in rows(world)] == [1]
