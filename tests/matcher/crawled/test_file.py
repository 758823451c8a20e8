from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from matcher.copies.features import Fingerprint, fingerprint
from matcher.copies.segment import Query
from matcher.crawled.file import PictureFile, PictureFileInvalid, build, merged
from matcher.crawled.table import PAGES, CrawledPicture, event_of, joined, of_event
from tests.matcher.pictures import photo

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PRINTS = {seed: fingerprint(photo(seed)) for seed in range(1, 5)}


def picture(seed: int, *pages: str, cycle: int = 1, bare: bool = False) -> CrawledPicture:
    size = None if bare else (600, 450)
    place = (0, f"crawl/1/{cycle}/1/000000.tar", 512, 100)
    digests = hashlib.sha256(bytes([seed])).digest(), bytes(16)
    seen = NOW + timedelta(days=cycle)
    return CrawledPicture(
        *digests, f"http://cdn.example/{seed}.jpg", "image/jpeg", cycle, 1, place, seen, seen, "r", tuple((p, "") for p in pages), size
    )


def opened(*pictures: CrawledPicture) -> PictureFile:
    prints = [PRINTS[number + 1] if each.size else None for number, each in enumerate(pictures)]
    return PictureFile(memoryview(build(pictures, prints)))


def file_of(*seeds: int, cycle: int = 1) -> PictureFile:
    pictures = [picture(seed, f"http://a.example/{cycle}", cycle=cycle) for seed in seeds]
    return PictureFile(memoryview(build(pictures, [PRINTS[seed] for seed in seeds])))


def proposed(file: PictureFile, query: Fingerprint) -> bytes | None:
    votes = file.segment.vote(Query.of(query))
    return file.picture(int(votes.pictures[votes.votes.argmax()])).sha256 if len(votes.pictures) else None


def test_a_file_has_what_went_into_it() -> None:
    pictures = [picture(1, "http://a.example/"), picture(2, bare=True), picture(3)]
    file = PictureFile(memoryview(build(pictures, [PRINTS[1], None, PRINTS[3]])))
    assert [file.picture(number) for number in range(len(file))] == pictures
    assert [file.find(each.sha256) for each in pictures] == [[each] for each in pictures]
    assert file.find(bytes(32)) == []
    assert file.find(b"\xff" * 32) == []
    assert proposed(file, fingerprint(photo(3)[50:400, 100:500])) == pictures[2].sha256


def test_looks_are_compared_with_the_picture_and_its_mirror() -> None:
    file = PictureFile(memoryview(merged([file_of(1, 2), file_of(3)])[0]))
    for seed in (1, 2, 3):
        for flip in (False, True):
            rgb = photo(seed)[:, ::-1] if flip else photo(seed)
            (found,) = file.alike(fingerprint(np.ascontiguousarray(rgb)).look, 3, 50.0)
            assert (file.picture(found.number).sha256, found.mirrored) == (picture(seed).sha256, flip)
            assert found.distance < 10
    assert file.alike(np.zeros(0, np.uint8), 3, 1000.0) == []
    assert len(file.alike(PRINTS[1].look, 2, 1000.0)) == 2
    bare = PictureFile(memoryview(build([picture(1, bare=True)], [None])))
    assert bare.alike(PRINTS[1].look, 3, 1000.0) == []


def test_an_empty_file_is_one() -> None:
    file = PictureFile(memoryview(build([], [])))
    assert len(file) == 0
    assert file.find(bytes(32)) == []
    assert proposed(file, PRINTS[1]) is None


def test_merging_keeps_each_picture_once_with_its_features_and_all_pages() -> None:
    early, late = file_of(1, 2, 3), file_of(4, 2, cycle=2)
    further = PictureFile(memoryview(build([picture(1, "http://a.example/3", cycle=3, bare=True)], [None])))
    body, count = merged([early, late, further])
    file = PictureFile(memoryview(body))
    assert (count, len(file)) == (4, 4)
    assert len({bytes(digest) for digest in file.digests}) == 4
    for seed in (1, 2, 3, 4):
        assert proposed(file, PRINTS[seed]) == picture(seed).sha256
    [one], [two] = file.find(picture(1).sha256), file.find(picture(2).sha256)
    assert (one.pages, one.size) == ((("http://a.example/1", ""), ("http://a.example/3", "")), (600, 450))
    assert (one.cycle, one.place[1]) == (3, "crawl/1/3/1/000000.tar")
    assert (two.first_seen, two.last_seen) == (NOW + timedelta(days=1), NOW + timedelta(days=2))


def test_merging_in_steps_is_merging_at_once() -> None:
    files = [file_of(1, 2), file_of(2, 3, cycle=2), file_of(3, 4, cycle=3)]
    steps = PictureFile(memoryview(merged([PictureFile(memoryview(merged(files[:2])[0])), files[2]])[0]))
    once = PictureFile(memoryview(merged(files)[0]))
    assert [steps.picture(n) for n in range(4)] == [once.picture(n) for n in range(4)]


def test_merging_leaves_out_what_was_not_seen_since() -> None:
    body, count = merged([file_of(1, 2), file_of(2, cycle=5)], seen_since=NOW + timedelta(days=3))
    file = PictureFile(memoryview(body))
    assert count == 1
    assert file.picture(0).sha256 == picture(2).sha256
    assert proposed(file, PRINTS[2]) == picture(2).sha256
    assert merged([file_of(1)], seen_since=NOW + timedelta(days=3))[1] == 0


def test_the_pages_of_one_picture_are_bounded() -> None:
    many = [picture(1, *(f"http://a.example/{cycle}/{page}" for page in range(PAGES - 1)), cycle=cycle) for cycle in (1, 2)]
    assert len(joined(many).pages) == PAGES
    assert joined(many).pages[-1] == ("http://a.example/2/0", "")


def test_bytes_that_are_no_file_are_refused() -> None:
    body = build([picture(1), picture(2)], [PRINTS[1], PRINTS[2]])
    for damaged in (b"", body[:20], b"FGC2" + body[4:], body[:200], body[:-1], body[:8] + b"\xff" * 24 + body[32:]):
        with pytest.raises(PictureFileInvalid):
            PictureFile(memoryview(damaged))


def test_a_row_is_the_message_that_told_of_it() -> None:
    kept = picture(1, "http://a.example/")
    event = event_of(kept, 7, 3, shared=True, registry_version=9)
    assert (event.session, event.account, event.shared, event.registry_version) == (7, 3, True, 9)
    assert of_event(event, kept.last_seen, kept.size) == kept
