"""Files of crawled pictures that can be searched: who sees them, what is merged, what is over. The caller owns the transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from core.database.statements import insert
from core.events import MediaChanged
from core.models import Account, CrawledFile, CrawlSession, Match, Picture
from core.repo import media

PREFIX: Final = "crawled/"
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class FileDraft:
    """The columns of a `CrawledFile` that its writer knows."""

    session_id: int
    key: str
    offset: int
    length: int
    sha256: str
    pictures: int
    last_seen: datetime
    fresh: bool


def add(tx: Session, drafts: Sequence[FileDraft], now: datetime) -> None:
    """From here on their pictures are searched. May be repeated. Those of deleted sessions are left out."""
    there = _alive(tx, {draft.session_id for draft in drafts})
    for draft in drafts:
        if draft.session_id in there:
            tx.execute(insert(tx, CrawledFile).values(**_columns(draft), stored=now).on_conflict_do_nothing())


def _columns(draft: FileDraft) -> dict[str, object]:
    return {name: getattr(draft, name) for name in FileDraft.__slots__}


def _alive(tx: Session, sessions: Collection[int]) -> set[int]:
    found = select(CrawlSession.id).where(CrawlSession.id.in_(sessions), CrawlSession.deleted.is_(False))
    return set(tx.scalars(found))


# --- who sees what


def visible(tx: Session, account_id: int) -> list[CrawledFile]:
    """The files that the account may search: of its own sessions and of the shared ones."""
    allowed = or_(CrawlSession.account_id == account_id, CrawlSession.shared.is_(True))
    found = select(CrawledFile).join(CrawlSession, CrawlSession.id == CrawledFile.session_id)
    found = found.where(allowed, CrawlSession.deleted.is_(False), CrawledFile.retired.is_(None))
    return list(tx.scalars(found.order_by(CrawledFile.id)))


def owners(tx: Session, sessions: Collection[int]) -> dict[int, tuple[int, bool]]:
    """Session -> (account, whether it is shared), of those that are there."""
    found = select(CrawlSession.id, CrawlSession.account_id, CrawlSession.shared)
    found = found.where(CrawlSession.id.in_(sessions), CrawlSession.deleted.is_(False))
    return {row.id: (row.account_id, row.shared) for row in tx.execute(found)}


def is_current(tx: Session, file_id: int) -> bool:
    """Whether the file is still searched: neither merged into another, nor over."""
    return tx.scalar(select(CrawledFile.id).where(CrawledFile.id == file_id, CrawledFile.retired.is_(None))) is not None


# --- what was registered since


def behind(tx: Session) -> list[int]:
    """Accounts that registered something which was not looked for in the crawled pictures yet."""
    return list(tx.scalars(select(Account.id).where(Account.scanned_version < Account.registry_version).order_by(Account.id)))


def unscanned(tx: Session, account_id: int, limit: int) -> tuple[int, list[MediaChanged]]:
    """(version, the registered pictures that changed up to it and were not looked for yet), the oldest changes first, about `limit`."""
    account = tx.get_one(Account, account_id, populate_existing=True)
    later = select(Picture.version).where(Picture.account_id == account_id, Picture.version > account.scanned_version)
    versions = list(tx.scalars(later.order_by(Picture.version).limit(limit)))
    version = versions[-1] if len(versions) == limit else account.registry_version
    changes = media.changes(tx, account_id, account.scanned_version, version)
    return version, changes


def mark_scanned(tx: Session, account_id: int, version: int) -> None:
    """Up to this version everything was looked for. Never goes back."""
    tx.execute(update(Account).where(Account.id == account_id, Account.scanned_version < version).values(scanned_version=version))


def known_matches(tx: Session, account_id: int, sha256s: Collection[str]) -> list[Match]:
    """The account's web matches that found these bytes."""
    wanted = sorted(sha256s)
    return [
        match
        for start in range(0, len(wanted), _BATCH)
        for match in tx.scalars(
            select(Match).where(Match.account_id == account_id, Match.type == "web", Match.sha256.in_(wanted[start : start + _BATCH]))
        )
    ]


# --- merging


def fresh(tx: Session, after: int, limit: int) -> list[CrawledFile]:
    """What matchers stored and nobody merged yet, from behind the file with that id on, the oldest first."""
    current = and_(CrawledFile.fresh.is_(True), CrawledFile.retired.is_(None), CrawledFile.id > after)
    return list(tx.scalars(select(CrawledFile).where(current).order_by(CrawledFile.id).limit(limit)))


def crowded(tx: Session, pictures: int, most: int, at_rest_since: datetime, limit: int) -> list[int]:
    """Sessions with more than `most` files of less than so many pictures each, or with more than one and none of them stored since then;
    those with most of them first."""
    small = and_(CrawledFile.fresh.is_(False), CrawledFile.retired.is_(None), CrawledFile.pictures < pictures)
    count = func.count()
    at_rest = and_(count > 1, func.max(CrawledFile.stored) < at_rest_since)
    found = select(CrawledFile.session_id).where(small).group_by(CrawledFile.session_id).having(or_(count > most, at_rest))
    return list(tx.scalars(found.order_by(count.desc(), CrawledFile.session_id).limit(limit)))


def small_of(tx: Session, session_id: int, pictures: int) -> list[CrawledFile]:
    """The session's merged files of less than so many pictures, the oldest first."""
    found = select(CrawledFile).where(CrawledFile.session_id == session_id, CrawledFile.fresh.is_(False), CrawledFile.retired.is_(None))
    return list(tx.scalars(found.where(CrawledFile.pictures < pictures).order_by(CrawledFile.id)))


def replace(tx: Session, file_ids: Collection[int], drafts: Sequence[FileDraft], now: datetime) -> bool:
    """One for others, at once: no search misses a picture or sees it in neither. False (and nothing is done) where one of them is
    retired already: another merge was quicker, or its session is deleted."""
    ids = sorted(file_ids)
    found = select(CrawledFile.id).where(CrawledFile.id.in_(ids), CrawledFile.retired.is_(None)).order_by(CrawledFile.id)
    if list(tx.scalars(found.with_for_update())) != ids:
        return False
    retire(tx, ids, now)
    add(tx, drafts, now)
    return True


def retire(tx: Session, file_ids: Collection[int], now: datetime) -> None:
    """Not searched any more from here on."""
    tx.execute(update(CrawledFile).where(CrawledFile.id.in_(file_ids), CrawledFile.retired.is_(None)).values(retired=now))


# --- what is over


def expired(tx: Session, before: datetime, limit: int) -> list[int]:
    """Files of which no picture was seen since then."""
    found = select(CrawledFile.id).where(CrawledFile.retired.is_(None), CrawledFile.last_seen < before)
    return list(tx.scalars(found.order_by(CrawledFile.id).limit(limit)))


def removable(tx: Session, before: datetime, limit: int) -> list[str]:
    """Objects of which every file has been retired since before then."""
    other = aliased(CrawledFile)
    needed = exists().where(other.key == CrawledFile.key, or_(other.retired.is_(None), other.retired >= before))
    found = select(CrawledFile.key).where(CrawledFile.retired < before, ~needed).distinct()
    return list(tx.scalars(found.order_by(CrawledFile.key).limit(limit)))


def forget(tx: Session, keys: Collection[str]) -> None:
    """Removes the rows of objects that are gone."""
    tx.execute(delete(CrawledFile).where(CrawledFile.key.in_(keys)).execution_options(synchronize_session=False))


def totals(tx: Session) -> tuple[int, int, int]:
    """(files, pictures, bytes) that are searched."""
    sums = (func.count(), func.coalesce(func.sum(CrawledFile.pictures), 0), func.coalesce(func.sum(CrawledFile.length), 0))
    files, pictures, size = tx.execute(select(*sums).where(CrawledFile.retired.is_(None))).one()
    return files, int(pictures), int(size)
