"""Registered pictures and their registrations: rows that the media tree points to. The caller owns the transaction, and has locked the
account where something is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from core.errors import Conflict
from core.models import Account, Match, Media, Picture, Registration, Static

_BATCH: Final = 500

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PictureDraft:
    """What `put_picture` needs; the objects behind the keys are stored already. A transactional one has no fingerprint and no preview."""

    pixel_hash: str
    """Hex SHA-256 of the original's decoded pixels."""
    width: int
    height: int
    credit: str | None
    fingerprint_key: str
    preview_key: str
    thumbnail_key: str
    disk_usage: int
    """Bytes that the account is charged for."""
    key_id: str = ""
    """Hex id of the watermark's key; empty = plain."""
    lmk_key: str | None = None
    exclusive: bool | None = None
    small_key: str | None = None
    """The small picture that watermarks are looked for with."""
    marked_key: str | None = None
    """The preview with the key's mark in it."""
    reduced: bool = False
    """Fingerprint and preview were made of the small picture, not of the original."""
    transactional: bool = False
    """The picture has to be registered already: this is one more key of it."""


def put(tx: Session, account: Account, draft: PictureDraft, now: datetime) -> Picture:
    """The row of these pixels. One that no media had any more begins anew, since its objects may be gone."""
    picture = tx.scalar(select(Picture).where(Picture.account_id == account.id, Picture.pixel_hash == draft.pixel_hash))
    if picture is not None and not picture.deleted:
        _improve(tx, picture, draft, now)
        return picture
    if draft.transactional:
        raise Conflict("the original of this transactional registration is not registered", code="original_not_registered")
    preview, thumbnail = _static(draft.preview_key, "preview.jpg", now), _static(draft.thumbnail_key, "thumbnail.jpg", now)
    tx.add_all([preview, thumbnail])
    tx.flush()
    if picture is None:
        picture = Picture(account_id=account.id, pixel_hash=draft.pixel_hash, version=0, created=now)
    picture.width, picture.height, picture.credit = draft.width, draft.height, draft.credit
    picture.fingerprint_key, picture.small_key, picture.reduced = draft.fingerprint_key, draft.small_key, draft.reduced
    picture.preview_id, picture.thumbnail_id = preview.id, thumbnail.id
    picture.deleted = False
    tx.add(picture)
    tx.flush()
    return picture


def put_registration(tx: Session, picture: Picture, draft: PictureDraft, now: datetime) -> Registration:
    found = tx.scalar(select(Registration).where(Registration.picture_id == picture.id, Registration.key_id == draft.key_id))
    if found is not None and found.id in in_use(tx, [picture.id]):
        return found
    if found is None:
        found = Registration(picture_id=picture.id, key_id=draft.key_id, created=now)
    found.lmk_key, found.preview_id = draft.lmk_key, _marked(tx, picture, draft, now)
    tx.add(found)
    tx.flush()
    return found


def by_ids(tx: Session, picture_ids: Sequence[int]) -> list[Picture]:
    """Those that exist, in no order."""
    return [picture for some in batched(picture_ids) for picture in tx.scalars(select(Picture).where(Picture.id.in_(some)))]


def statics(tx: Session, static_ids: Sequence[int]) -> list[Static]:
    """Those that exist, in no order."""
    return [static for some in batched(static_ids) for static in tx.scalars(select(Static).where(Static.id.in_(some)))]


def by_pixels(tx: Session, account_id: int, pixel_hash: str) -> Picture | None:
    """The account's registered picture with these pixels; None where it has none."""
    query = select(Picture).where(Picture.account_id == account_id, Picture.pixel_hash == pixel_hash, Picture.deleted.is_(False))
    return tx.scalar(query)


def in_use(tx: Session, picture_ids: Sequence[int]) -> dict[int, int]:
    """Registration id -> picture id, of those that at least one media has."""
    used: dict[int, int] = {}
    for some in batched(picture_ids):
        has_media = exists().where(Media.registration_id == Registration.id)
        query = select(Registration.id, Registration.picture_id).where(Registration.picture_id.in_(some), has_media)
        used.update((row.id, row.picture_id) for row in tx.execute(query))
    return used


def unneeded(tx: Session, picture_id: int) -> list[str]:
    """Keys of a picture's objects that no row needs: registrations without media, with their previews; when it is deleted, the
    fingerprint and the small picture, and the preview and thumbnail unless matches still show them."""
    picture = tx.get_one(Picture, picture_id)
    used = in_use(tx, [picture_id])
    unused = [r for r in picture.registrations if r.id not in used]
    keys = [r.lmk_key for r in unused if r.lmk_key is not None]
    shown = {picture.preview_id, picture.thumbnail_id}
    over = (
        {r.preview_id for r in unused if r.preview_id is not None} - {r.preview_id for r in picture.registrations if r.id in used} - shown
    )
    if picture.deleted:
        keys += [key for key in (picture.fingerprint_key, picture.small_key) if key is not None]
        if tx.scalar(select(Match.id).where(Match.picture_id == picture_id).limit(1)) is None:
            over |= shown
    return keys + [static.key for static in statics(tx, sorted(over))]


def batched(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Pieces that fit in the parameters of one statement."""
    return (items[start : start + _BATCH] for start in range(0, len(items), _BATCH))


def _improve(tx: Session, picture: Picture, draft: PictureDraft, now: datetime) -> None:
    """The original knows more of a picture than a registration's small one did. Keys keep the preview that they were shown with."""
    picture.small_key = picture.small_key or draft.small_key
    if not picture.reduced or draft.reduced or draft.transactional:
        return
    preview = _static(draft.preview_key, "preview.jpg", now)
    tx.add(preview)
    tx.flush()
    for registration in picture.registrations:
        if registration.key_id:
            registration.preview_id = registration.preview_id or picture.preview_id
    picture.fingerprint_key, picture.preview_id, picture.credit, picture.reduced = draft.fingerprint_key, preview.id, draft.credit, False


def _static(key: str, filename: str, now: datetime) -> Static:
    return Static(key=key, content_type="image/jpeg", filename=filename, created=now)


def _marked(tx: Session, picture: Picture, draft: PictureDraft, now: datetime) -> int | None:
    """The address of the preview with the draft's mark; None where the picture's own is it, or there is none."""
    if draft.marked_key is None or tx.get_one(Static, picture.preview_id).key == draft.marked_key:
        return None
    marked = _static(draft.marked_key, "preview.jpg", now)
    tx.add(marked)
    tx.flush()
    return marked.id
