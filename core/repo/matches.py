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
from core.repo import media

ROWS_PER_SITE: Final = 1000
"""For one registered picture of an account; further pages are counted, not listed."""


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


def upsert(tx: Session, draft: MatchDraft, now: datetime) -> Match | None:
    """Records the match; None when there is nothing new (known already, no media left, or the site's rows are full).

    The media are locked first, so a match never appears for media deleted meanwhile, and two who record the same match wait for each
    other. A known match is linked to media that were registered since.
    """
    nodes = media.linked(tx, draft.picture_id, draft.key_id, key_detected=draft.key_detected, lock=True)
    if not nodes:
        return None
    known = _known(tx, draft)
    if known is not None:
        known.media.extend(node for node in nodes if node not in known.media)
        tx.flush()
        return None
    if _rows(tx, draft) >= ROWS_PER_SITE:
        _count_surplus(tx, draft)
        return None
    columns = asdict(draft)
    del columns["key_detected"]
    match = Match(**columns, exclusive=_exclusive(nodes), created=now, media=nodes)
    tx.add(match)
    tx.flush()
    return match


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
    """How many pages with copies were found and are not listed, because their site's rows were full."""
    return tx.scalar(select(func.coalesce(func.sum(MatchSurplus.count), 0)).where(MatchSurplus.account_id == account_id)) or 0


def _known(tx: Session, draft: MatchDraft) -> Match | None:
    return tx.scalar(
        select(Match).where(
            Match.account_id == draft.account_id,
            Match.picture_id == draft.picture_id,
            Match.key_id == draft.key_id,
            Match.sha256 == draft.sha256,
            Match.page_url == draft.page_url,
        )
    )


def _rows(tx: Session, draft: MatchDraft) -> int:
    same_site = (Match.account_id == draft.account_id, Match.picture_id == draft.picture_id, Match.site == draft.site)
    return tx.scalar(select(func.count()).select_from(Match).where(*same_site)) or 0


def _count_surplus(tx: Session, draft: MatchDraft) -> None:
    row = tx.get(MatchSurplus, (draft.account_id, draft.picture_id, draft.site), with_for_update=True)
    if row is None:
        row = MatchSurplus(account_id=draft.account_id, picture_id=draft.picture_id, site=draft.site, count=0)
        tx.add(row)
    row.count += 1
    tx.flush()


def _exclusive(nodes: Sequence[Media]) -> bool | None:
    """True when any media is exclusive, None when nobody said."""
    flags = {node.exclusive for node in nodes}
    return True if True in flags else False if False in flags else None
