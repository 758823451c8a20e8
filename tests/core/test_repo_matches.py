"""What a match is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.models import Account, Match, Media
from core.repo import accounts, matches, media
from core.repo.matches import MatchDraft, MatchFilters
from core.repo.pictures import PictureDraft
from core.services import Services

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def account_of(tx: Session) -> Account:
    return accounts.create(tx, b"secret", "jo", now=NOW)[0]


def put(tx: Session, account: Account, path: str, pixels: str = "p", key_id: str = "", exclusive: bool | None = None) -> Media:
    draft = PictureDraft(pixels, 10, 20, None, f"f/{path}", f"p/{path}", f"t/{path}", 5, key_id, None, exclusive)
    return media.put_picture(tx, account.id, path, draft, NOW)[0]


def draft_of(node: Media, **columns: Any) -> MatchDraft:
    assert node.registration is not None
    base = MatchDraft(
        account_id=node.account_id, picture_id=node.registration.picture_id, key_id="", sha256="s", md5="m", page_url="http://a/1",
        site="a", query_url="http://a/1.jpg", session_id=1, watermarked=False, first_seen=NOW, request_id="r",
    )  # fmt: skip
    return replace(base, **columns)


def count(tx: Session) -> int:
    return tx.scalar(select(func.count()).select_from(Match)) or 0


def test_172_a_replay_is_silent(services: Services) -> None:
    with services.database.write() as tx:
        node = put(tx, account_of(tx), "jo/a.jpg")
        assert matches.upsert(tx, draft_of(node), NOW) is not None
        assert matches.upsert(tx, draft_of(node, score=3.0), NOW) is None
        assert matches.upsert(tx, draft_of(node, page_url="http://a/2"), NOW) is not None
        assert matches.upsert(tx, draft_of(node, sha256="other"), NOW) is not None
        assert count(tx) == 3


def test_no_media_no_row(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        node = put(tx, jo, "jo/a.jpg", key_id="k")
        draft = draft_of(node)
        assert matches.upsert(tx, replace(draft, key_id="other"), NOW) is None
        media.delete(tx, jo.id, "jo/a.jpg", NOW)
        assert matches.upsert(tx, draft, NOW) is None
        assert count(tx) == 0


def test_links_follow_the_key(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        plain, keyed = put(tx, jo, "jo/plain.jpg"), put(tx, jo, "jo/keyed.jpg", key_id="k")
        with_key = matches.upsert(tx, draft_of(keyed, key_id="k", watermarked=True), NOW)
        without = matches.upsert(tx, draft_of(plain, key_detected=True), NOW)
        undetected = matches.upsert(tx, draft_of(plain, sha256="other"), NOW)
        assert with_key is not None
        assert without is not None
        assert undetected is not None
        assert [node.path for node in with_key.media] == ["jo/keyed.jpg"]
        assert [node.path for node in without.media] == ["jo/plain.jpg"]
        assert [node.path for node in undetected.media] == ["jo/plain.jpg", "jo/keyed.jpg"]


def test_153_exclusive_is_recorded(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        for exclusive in (True, False, None):
            match = matches.upsert(tx, draft_of(put(tx, jo, f"jo/{exclusive}.jpg", pixels=str(exclusive), exclusive=exclusive)), NOW)
            assert match is not None
            assert match.exclusive is exclusive
        tx.flush()
        assert len(tx.scalars(matches.web_matches(jo.id, MatchFilters(exclusive=True))).all()) == 1
        assert len(tx.scalars(matches.web_matches(jo.id, MatchFilters(exclusive=False))).all()) == 1


def test_a_site_has_so_many_rows(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "ROWS_PER_SITE", 3)
    with services.database.write() as tx:
        jo = account_of(tx)
        node = put(tx, jo, "jo/a.jpg")
        made = [matches.upsert(tx, draft_of(node, page_url=f"http://a/{page}"), NOW) for page in range(5)]
        assert [match is not None for match in made] == [True, True, True, False, False]
        assert matches.upsert(tx, draft_of(node, page_url="http://a/0"), NOW) is None
        assert matches.upsert(tx, draft_of(node, page_url="http://b/0", site="b"), NOW) is not None
        assert matches.surplus(tx, jo.id) == 2


def test_a_logo_on_many_pages_costs_little_and_a_replay_counts_nothing_twice(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matches, "ROWS_PER_SITE", 10)
    with services.database.write() as tx:
        jo = account_of(tx)
        node = put(tx, jo, "jo/logo.png")

    def see(first: int) -> int:
        with services.database.write() as tx:
            return len(matches.record(tx, [draft_of(node, page_url=f"http://a/{page}") for page in range(first, first + 500)], NOW))

    assert [see(first) for first in range(0, 5000, 500)] == [10] + [0] * 9
    with services.database.read() as tx:
        surplus = matches.surplus(tx, jo.id)
    assert surplus == pytest.approx(4990, rel=0.05)
    assert [see(first) for first in range(0, 4750, 250)] == [0] * 19
    with services.database.read() as tx:
        assert matches.surplus(tx, jo.id) == surplus
        assert count(tx) == 10


def test_the_same_match_twice_in_a_transaction_is_one(services: Services) -> None:
    with services.database.write() as tx:
        node = put(tx, account_of(tx), "jo/a.jpg")
        assert len(matches.record(tx, [draft_of(node), draft_of(node, score=1.0)], NOW)) == 1
        assert count(tx) == 1


def test_136_after_deletion_and_after_registering_anew(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        node = put(tx, jo, "jo/a.jpg")
        draft = draft_of(node)
        match = matches.upsert(tx, draft, NOW)
        assert match is not None
    with services.database.write() as tx:
        keys = media.delete(tx, jo.id, "jo/a.jpg", NOW)
        assert keys == ["f/jo/a.jpg"]  # the match still shows preview and thumbnail
        assert matches.get(tx, jo.id, match.id).media == []
        put(tx, jo, "jo/b.jpg")
        assert matches.upsert(tx, draft, NOW) is None
        assert [found.path for found in matches.get(tx, jo.id, match.id).media] == ["jo/b.jpg"]
        with pytest.raises(NotFound):
            matches.get(tx, jo.id + 1, match.id)


def test_filters(services: Services) -> None:
    with services.database.write() as tx:
        jo = account_of(tx)
        one, two = put(tx, jo, "jo/a/one.jpg", "1"), put(tx, jo, "jo/a/b/two.jpg", "2")
        matches.upsert(tx, draft_of(one), NOW)
        matches.upsert(tx, draft_of(two, watermarked=True), NOW)

        def found(**filters: Any) -> set[str]:
            return {match.media[0].path for match in tx.scalars(matches.web_matches(jo.id, MatchFilters(**filters)))}

        assert found() == {"jo/a/one.jpg", "jo/a/b/two.jpg"}
        assert found(watermarked=True) == {"jo/a/b/two.jpg"}
        assert found(watermarked=False, media_id=media.get(tx, jo.id, "jo/a/b").id) == set()
        assert found(media_id=media.get(tx, jo.id, "jo/a").id) == {"jo/a/one.jpg", "jo/a/b/two.jpg"}
        assert found(media_id=one.id) == {"jo/a/one.jpg"}
        assert list(tx.scalars(matches.web_matches(jo.id + 1))) == []
