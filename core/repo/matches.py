"""Matches: what was found where, and which media that concerns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Select, exists, func, select
from sqlalchemy.orm import Session

from core.errors import NotFound
from core.models import Match, MatchMedia, MatchSurplus, Media
from core.repo import distinct, media

ROWS_PER_SITE: Final = 1000
"""For one registered picture of an account; further pages are counted, not listed."""
_BATCH: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchDraft:
    """A match to be recorded: the columns of `Match` that the matcher knows."""

    account_id: int
    picture_id: int
    key_id: str
    """Hex id of the detected key; empty = none (a copy by its look)."""
    sha256: str
    md5: str
    page_url: str
    site: str
    query_url: str
    session_id: int
    watermarked: bool
    first_seen: datetime
    request_id: str
    type: str = "web"
    alt: str = ""
    p_value: float | None = None
    payload: int | None = None
    verdict: str | None = None
    score: float | None = None
    mirrored: bool | None = None
    overlap: float | None = None
    transform: list[float] | None = None
    width: int | None = None
    height: int | None = None
    last_modified: datetime | None = None
    key_detected: bool = False
    """For a draft without key: a key of this picture was detected in the same bytes, so the keyed media have a row of their own."""


@dataclass(frozen=True, slots=True)
class MatchFilters:
    """None = both."""

    watermarked: bool | None = None
    exclusive: bool | None = None
    media_id: int | None = None
    """Only matches of this media, or of any below this folder."""


def record(tx: Session, drafts: Sequence[MatchDraft], now: datetime) -> list[Match]:
    """Records the matches; returns the new ones (not those that are known already, have no media left, or whose site's rows are full).

    The media are locked first, so a match never appears for media deleted meanwhile, and two who record the same match wait for each
    other. A known match is linked to media that were registered since.
    """
    nodes = media.of_pictures(tx, {draft.picture_id for draft in drafts}, lock=True)
    known = _known(tx, drafts)
    sites = _Sites(tx)
    new: list[Match] = []
    for draft in drafts:
        concerned = media.concerned(nodes.get(draft.picture_id, ()), draft.key_id, key_detected=draft.key_detected)
        if not concerned:
            continue
        match = known.get(_identity(draft))
        if match is not None:
            match.media.extend(node for node in concerned if node not in match.media)
        elif sites.take(draft):
            columns = asdict(draft)
            del columns["key_detected"]
            match = known[_identity(draft)] = Match(**columns, exclusive=_exclusive(concerned), created=now, media=concerned)
            new.append(match)
    tx.add_all(new)
    sites.count_surplus()
    tx.flush()
    return new


def upsert(tx: Session, draft: MatchDraft, now: datetime) -> Match | None:
    """Records one match; None where `record` returns none."""
    return next(iter(record(tx, [draft], now)), None)


def web_matches(account_id: int, filters: MatchFilters | None = None) -> Select[Match]:
    """The account's web matches, not ordered."""
    filters = filters or MatchFilters()
    query = select(Match).where(Match.account_id == account_id, Match.type == "web")
    if filters.watermarked is not None:
        query = query.where(Match.watermarked.is_(filters.watermarked))
    if filters.exclusive is not None:
        query = query.where(Match.exclusive.is_(filters.exclusive))
    if filters.media_id is not None:
        nodes = media.subtree(filters.media_id)
        query = query.where(exists().where(MatchMedia.match_id == Match.id, MatchMedia.media_id.in_(select(nodes.c.id))))
    return query


def get(tx: Session, account_id: int, match_id: int) -> Match:
    """Raises NotFound: unknown or another account's."""
    match = tx.scalar(select(Match).where(Match.id == match_id, Match.account_id == account_id))
    if match is None:
        raise NotFound("no such match", code="match_not_found")
    return match


def of_session(tx: Session, account_id: int, session_id: int) -> int:
    """How many web matches a session's crawls have led to."""
    found = web_matches(account_id).where(Match.session_id == session_id).subquery()
    return tx.scalar(select(func.count()).select_from(found)) or 0


def surplus(tx: Session, account_id: int) -> int:
    """How many finds on pages are not listed, because their site's rows were full: an estimate (see `distinct`), which a replay of
    messages does not change."""
    return int(tx.scalar(select(func.coalesce(func.sum(MatchSurplus.count), 0)).where(MatchSurplus.account_id == account_id)) or 0)


_Identity = tuple[int, int, str, str, str]


def _identity(match: MatchDraft | Match) -> _Identity:
    """What there is one row for."""
    return match.account_id, match.picture_id, match.key_id, match.sha256, match.page_url


def _known(tx: Session, drafts: Sequence[MatchDraft]) -> dict[_Identity, Match]:
    """The rows that are there already: one query for each find and some hundred pages."""
    pages: dict[tuple[int, int, str, str], list[str]] = {}
    for draft in drafts:
        pages.setdefault(_identity(draft)[:4], []).append(draft.page_url)
    known: dict[_Identity, Match] = {}
    for (account_id, picture_id, key_id, sha256), urls in pages.items():
        same = (Match.account_id == account_id, Match.picture_id == picture_id, Match.key_id == key_id, Match.sha256 == sha256)
        for start in range(0, len(urls), _BATCH):
            found = tx.scalars(select(Match).where(*same, Match.page_url.in_(urls[start : start + _BATCH])))
            known |= {_identity(match): match for match in found}
    return known


class _Sites:
    """How many rows the sites have left in one transaction, and what came after these."""

    def __init__(self, tx: Session) -> None:
        self._tx = tx
        self._left: dict[tuple[int, int, str], int] = {}
        self._surplus: dict[tuple[int, int, str], list[str]] = {}

    def take(self, draft: MatchDraft) -> bool:
        """Whether there is room for one more row; if not, it is counted."""
        site = draft.account_id, draft.picture_id, draft.site
        if site not in self._left:
            self._left[site] = self._room(*site)
        if self._left[site] > 0:
            self._left[site] -= 1
            return True
        self._surplus.setdefault(site, []).append(" ".join((draft.key_id, draft.sha256, draft.page_url)))
        return False

    def _room(self, account_id: int, picture_id: int, site: str) -> int:
        if self._tx.get(MatchSurplus, (account_id, picture_id, site), with_for_update=True) is not None:
            return 0  # rows never get fewer: counting them once was enough
        rows = select(Match.id).where(Match.account_id == account_id, Match.picture_id == picture_id, Match.site == site)
        return ROWS_PER_SITE - (self._tx.scalar(select(func.count()).select_from(rows.limit(ROWS_PER_SITE).subquery())) or 0)

    def count_surplus(self) -> None:
        """Each page counts once, however often its message comes; nothing is written when none is new."""
        for site, pages in self._surplus.items():
            row = self._tx.get(MatchSurplus, site)
            if row is None:
                row = MatchSurplus(account_id=site[0], picture_id=site[1], site=site[2], count=0)
                self._tx.add(row)
            sketch = distinct.seen(row.sketch or b"", pages)
            if sketch != row.sketch:
                row.sketch, row.count = sketch, max(row.count, distinct.estimate(sketch))


def _exclusive(nodes: Sequence[Media]) -> bool | None:
    """True when any media is exclusive, None when nobody said."""
    flags = {node.exclusive for node in nodes}
    return True if True in flags else False if False in flags else None
