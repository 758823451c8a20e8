"""Crawled pictures are searched by who may see them, and matched with what is registered later."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from sqlalchemy.orm import Session

from core.errors import InvalidInput
from core.events import FeaturesFound, encode
from core.models import CrawledFile
from core.repo import accounts, media
from core.repo import crawls as sessions
from matcher.crawled import library, searching
from matcher.crawled.registrations import pieces
from matcher.watermark.embed import embed
from tests.matcher.crawled.crawls import Crawls
from tests.matcher.flat import dimmed, sky
from tests.matcher.pictures import crop, encoded, mirror, photo, resize
from tests.matcher.world import NOW, polled

PAGES = ("http://site.example/a", "http://site.example/b")


def jpeg(seed: int, quality: int = 80) -> bytes:
    return encoded(photo(seed), "JPEG", quality=quality)


def test_what_was_crawled_is_found_by_its_copies(crawls: Crawls) -> None:
    data = encoded(photo(1), "JPEG", quality=70)
    crawls.crawl(crawls.found(data, pages=PAGES, last_modified=NOW), crawls.found(jpeg(2)), crawls.found(jpeg(3)))
    (hit,) = crawls.search(encoded(crop(resize(photo(1), 0.7), 0.1, 0.1, 0.8), "JPEG"))
    assert (hit.pages, hit.page_count, hit.url, hit.last_modified) == (PAGES, 2, "http://cdn.example/x.jpg", NOW)
    assert (hit.width, hit.height, hit.verdict, hit.mirrored) == (600, 450, "copy", False)
    assert hit.transform is not None
    assert hit.transform[0] == pytest.approx(0.7, abs=0.02)  # crawled -> query
    assert hit.overlap == pytest.approx(0.64, abs=0.05)
    (flipped,) = crawls.search(encoded(mirror(photo(1)), "JPEG"))
    assert flipped.mirrored
    assert crawls.search(jpeg(9)) == []


def test_similar_needs_no_stored_bytes(crawls: Crawls) -> None:
    event = crawls.found(jpeg(1))
    crawls.crawl(event)
    crawls.services.store.delete([event.bytes.key])
    (hit,) = crawls.search(jpeg(1, 60), similar=True)
    assert (hit.sha256, hit.verdict) == (event.sha256, None)
    assert hit.score is not None
    assert hit.score > 10
    assert crawls.search(jpeg(1, 60)) == []  # what cannot be verified is no hit


def test_what_only_looks_alike_is_similar(crawls: Crawls) -> None:
    ramp = np.linspace(0, 255, 240, dtype=np.uint8)
    smooth = np.stack([np.tile(ramp, (180, 1))] * 3, axis=-1)  # nothing in it that a feature could be
    crawls.crawl(crawls.found(encoded(smooth, "PNG")), crawls.found(jpeg(1)))
    (hit,) = crawls.search(encoded(mirror(smooth), "JPEG"), similar=True)
    assert (hit.width, hit.mirrored, hit.verdict) == (240, True, None)
    mosaic = np.repeat(np.repeat(photo(1)[::15, ::15], 15, axis=0), 15, axis=1)
    assert crawls.search(encoded(mosaic, "JPEG")) == []
    assert [found.width for found in crawls.search(encoded(mosaic, "JPEG"), similar=True)] == [600]


def test_of_very_many_the_nearest_looks_are_proposed(crawls: Crawls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "chance", lambda _: 1.0)
    ramp = np.linspace(0, 255, 240, dtype=np.uint8)
    smooth = np.stack([np.tile(ramp, (180, 1))] * 3, axis=-1)
    bent = np.stack([np.tile(ramp, (180, 1)) // 2 + np.linspace(0, 15, 180, dtype=np.uint8)[:, None]] * 3, axis=-1)
    for rgb in (bent, smooth):
        crawls.crawl(crawls.found(encoded(rgb, "PNG"), width=len(rgb)))
    assert len(crawls.search(encoded(smooth, "JPEG"), similar=True)) == 2
    monkeypatch.setattr(library, "CANDIDATES", 1)
    (hit,) = crawls.search(encoded(smooth, "JPEG"), similar=True)
    assert hit.sha256 == crawls.found(encoded(smooth, "PNG")).sha256
    assert hit.score == 0


def test_a_picture_that_is_near_by_two_looks_takes_one_place(crawls: Crawls, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query with dark corners is looked up with and without them."""
    monkeypatch.setattr(library, "CANDIDATES", 2)
    crawls.crawl(*(crawls.found(encoded(dimmed(sky(2), fall), "PNG")) for fall in (0.0, 0.25)))
    assert len(crawls.search(encoded(dimmed(sky(2), 0.12), "JPEG"), similar=True)) == 2


def test_an_answer_fits_into_a_message(crawls: Crawls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "_BYTES", 2_500)
    pages = [f"http://site.example/{'long/' * 200}{number}" for number in range(5)]
    crawls.crawl(crawls.found(jpeg(1), pages=pages), crawls.found(jpeg(1, 70), pages=pages))
    found = crawls.search(jpeg(1, 60))
    assert [(len(hit.pages), hit.page_count) for hit in found] == [(2, 5), (1, 5)]


def test_an_unknown_transform_is_refused(crawls: Crawls) -> None:
    with pytest.raises(InvalidInput):
        crawls.search(jpeg(1), transform="bend")


def test_an_account_finds_its_own_crawls_and_shared_ones_only(crawls: Crawls) -> None:
    ben, carl = crawls.add_account("ben"), crawls.add_account("carl")
    of_ben, of_carl = crawls.add_session(ben), crawls.add_session(carl, shared=True)
    crawls.crawl(crawls.found(jpeg(1)), crawls.by(ben, of_ben, jpeg(2)), crawls.by(carl, of_carl, jpeg(3), shared=True))
    found = {who.username: [seed for seed in (1, 2, 3) if crawls.search(jpeg(seed, 60), who)] for who in (crawls.account, ben, carl)}
    assert found == {"anna": [1, 3], "ben": [2, 3], "carl": [3]}


def test_a_replay_and_another_session_change_no_answer(crawls: Crawls) -> None:
    ben = crawls.add_account("ben")
    shared = crawls.add_session(ben, shared=True)
    event = crawls.found(jpeg(1), pages=PAGES)
    for _ in range(2):
        crawls.crawl(event)
    crawls.crawl(crawls.by(ben, shared, jpeg(1), shared=True, pages=("http://ben.example/", PAGES[0])))
    (hit,) = crawls.search(jpeg(1, 60))
    assert set(hit.pages) == {*PAGES, "http://ben.example/"}
    crawls.merge()
    assert sorted(map(len, crawls.files())) == [1, 1]  # one for each session
    (again,) = crawls.search(jpeg(1, 60))
    assert (set(again.pages), again.sha256) == (set(hit.pages), hit.sha256)


def test_further_pages_cost_no_features(crawls: Crawls) -> None:
    data = jpeg(1)
    event = crawls.found(data, pages=PAGES[:1])
    crawls.crawl(event)
    crawls.services.store.delete([event.bytes.key])  # nobody needs the bytes for that
    crawls.crawl(crawls.found(data, event.bytes, pages=PAGES[1:]))
    assert polled(crawls.services, "images.dead") == []
    (hit,) = crawls.search(data, similar=True)
    assert hit.pages == PAGES


def test_a_message_that_cannot_be_kept_holds_up_no_other(crawls: Crawls) -> None:
    crawls.crawl(crawls.found(jpeg(1), md5="no digest"), crawls.found(jpeg(2)))
    assert [message.headers["code"] for message in polled(crawls.services, "images.dead")] == ["internal"]
    assert [len(crawls.search(jpeg(seed, 60))) for seed in (1, 2)] == [0, 1]


def test_what_is_registered_later_is_matched_with_what_was_crawled(crawls: Crawls) -> None:
    marked, registration = embed(photo(1))
    crawls.crawl(crawls.found(encoded(marked, "JPEG", quality=80), pages=PAGES), crawls.found(jpeg(2)), crawls.found(jpeg(3)))
    crawls.crawl(crawls.found(encoded(mirror(photo(2)), "JPEG"), pages=("http://site.example/c",)))
    assert crawls.matches() == []
    crawls.register("marked.png", encoded(photo(1), "PNG"), watermark=registration)
    crawls.register("plain.jpg", jpeg(2, 95))
    assert crawls.registrations.turn() == 2
    found = {(m.page_url, m.watermarked, m.mirrored, *(node.path for node in m.media)) for m in crawls.matches()}
    assert found == {
        *((page, True, False, "anna/marked.png") for page in PAGES),
        ("http://site.example/c", False, True, "anna/plain.jpg"),
        ("http://site.example/a", False, False, "anna/plain.jpg"),
    }
    assert all(m.p_value is not None and m.p_value <= 1e-9 for m in crawls.matches() if m.watermarked)
    before = len(crawls.matches())
    assert crawls.registrations.turn() == 0
    crawls.crawl(crawls.found(encoded(marked, "JPEG", quality=80), pages=PAGES))
    assert len(crawls.matches()) == before


def test_registrations_see_no_foreign_crawls(crawls: Crawls) -> None:
    ben = crawls.add_account("ben")
    closed, shared = crawls.add_session(ben), crawls.add_session(ben, shared=True)
    crawls.crawl(crawls.by(ben, closed, jpeg(1)), crawls.by(ben, shared, jpeg(2), shared=True))
    crawls.register("a.jpg", jpeg(1, 95))
    crawls.register("b.jpg", jpeg(2, 95))
    crawls.registrations.turn()
    assert [(m.account_id, m.session_id, m.media[0].path) for m in crawls.matches()] == [(crawls.account.id, shared, "anna/b.jpg")]


def test_deleted_before_it_was_looked_for(crawls: Crawls) -> None:
    crawls.crawl(crawls.found(jpeg(1)))
    crawls.register("a.jpg", jpeg(1, 95))
    with crawls.services.database.write() as tx:
        media.delete(tx, crawls.account.id, "anna/a.jpg", NOW)
    assert crawls.registrations.turn() == 1
    assert crawls.matches() == []
    assert crawls.registrations.turn() == 0


def test_registered_while_it_is_crawled_the_writer_looks_again(crawls: Crawls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registrar commits between the writer's matching and its file, and has looked through the files before that."""
    store = crawls.images._crawled.store

    def late(found: object) -> None:
        crawls.register("a.jpg", jpeg(1, 95))
        assert crawls.registrations.turn() == 1
        assert crawls.matches() == []
        store(found)  # type: ignore[arg-type]

    monkeypatch.setattr(crawls.images._crawled, "store", late)
    crawls.crawl(crawls.found(jpeg(1), pages=PAGES))
    assert [m.page_url for m in crawls.matches()] == list(PAGES)


def test_registered_while_it_is_crawled_the_registrar_looks_after_the_file(crawls: Crawls, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is committed, the registration comes after the writer has read the versions."""
    versions = accounts.registry_versions
    asked = []

    def then(tx: Session, only: Collection[int] | None = None) -> dict[int, int]:
        found = versions(tx, only)
        asked.append(found)
        if len(asked) == 2:
            crawls.register("a.jpg", jpeg(1, 95))
        return found

    monkeypatch.setattr(accounts, "registry_versions", then)
    crawls.crawl(crawls.found(jpeg(1), pages=PAGES))
    assert crawls.matches() == []
    crawls.registrations.turn()
    assert [m.page_url for m in crawls.matches()] == list(PAGES)


def test_what_shards_are_told_fits_into_messages(crawls: Crawls) -> None:
    pages = [f"http://site.example/{'long/' * 380}{number}" for number in range(600)]
    event = crawls.found(jpeg(1), pages=pages)
    told = list(pieces(event))
    assert [sighting for piece in told for sighting in piece.sightings] == list(event.sightings)
    assert len(told) == 3
    assert max(len(encode(FeaturesFound(piece, bytes(60_000)))) for piece in told) < 700_000
    assert [len(piece.sightings) for piece in pieces(crawls.found(jpeg(1), pages=[f"http://a.example/{n}" for n in range(501)]))] == [
        500,
        1,
    ]


def test_a_deleted_session_is_not_searched_any_more(crawls: Crawls) -> None:
    crawls.crawl(crawls.found(jpeg(1)))
    crawls.services.database.transact(lambda tx: sessions.delete_session(tx, crawls.account.id, crawls.session, NOW))
    assert crawls.search(jpeg(1, 60)) == []
    crawls.register("a.jpg", jpeg(1, 95))
    crawls.registrations.turn()
    assert crawls.matches() == []


def test_a_damaged_and_a_missing_file_cost_their_own_pictures_only(crawls: Crawls) -> None:
    for seed in (1, 2, 3):
        crawls.crawl(crawls.found(jpeg(seed)))
    with crawls.services.database.read() as tx:
        first, second, _ = [row.key for row in tx.query(CrawledFile).order_by(CrawledFile.id)]
    store = crawls.services.store
    data = store.get(first)
    store.put(first, data[:-1] + bytes([data[-1] ^ 1]))
    store.delete([second])
    assert [len(crawls.search(jpeg(seed, 60))) for seed in (1, 2, 3)] == [0, 0, 1]
    crawls.register("c.jpg", jpeg(3, 95))
    crawls.registrations.turn()
    assert len(crawls.matches()) == 1


def test_files_that_are_merged_meanwhile_are_looked_up_again(crawls: Crawls, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (1, 2):
        crawls.crawl(crawls.found(jpeg(seed)))
    shelf = crawls.library._shelf
    get = shelf.get

    def slow(row: CrawledFile) -> object:
        if row.fresh and crawls.merge():
            crawls.services.store.delete([info.key for info in crawls.services.store.list("crawled/fresh/")])
        return get(row)

    monkeypatch.setattr(shelf, "get", slow)
    assert len(crawls.search(jpeg(2, 60))) == 1
