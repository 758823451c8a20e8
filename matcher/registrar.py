"""Registering a picture: decode, fingerprint, preview and thumbnail; objects first, then one transaction."""

from __future__ import annotations

import secrets
from typing import Final, NamedTuple

from core.imageinfo import image_info
from core.repo import media
from core.repo.media import PictureDraft
from core.services import Services
from matcher.copies import features
from matcher.decode import DECODED_SIDE, decode, shrunk
from matcher.pixels import jpeg, pixel_hash
from matcher.watermark.registration import Registration

PREVIEW_SIDE: Final = 1280
THUMBNAIL_SIDE: Final = 320
_QUALITY: Final = 85


class PreparedPicture(NamedTuple):
    """What is stored of a picture that is being registered. `pixel_hash`: hex SHA-256 of the original's upright pixels."""

    pixel_hash: str
    width: int
    height: int
    credit: str | None
    fingerprint: bytes
    preview: bytes
    thumbnail: bytes


class Registered(NamedTuple):
    media_id: int
    created: bool
    """False where it replaced another media at the path."""


def prepare(data: bytes) -> PreparedPicture:
    """Everything that takes processor time; for `Decoders.run`. Raises InvalidImage, UnsupportedMedia."""
    rgb, size = decode(data)
    preview = shrunk(rgb, PREVIEW_SIDE)
    return PreparedPicture(
        pixel_hash(rgb).hex(),
        *size,
        image_info(data).credit,
        features.registered(shrunk(rgb, DECODED_SIDE), size).to_bytes(),
        jpeg(preview, _QUALITY),
        jpeg(shrunk(preview, THUMBNAIL_SIDE), _QUALITY),
    )


def register(
    services: Services,
    account_id: int,
    path: str,
    prepared: PreparedPicture,
    *,
    disk_usage: int,
    exclusive: bool | None = None,
    watermark: Registration | None = None,
) -> Registered:
    """Stores the picture and puts its media at the path (`disk_usage`: bytes that the account is charged for).

    Raises:
        Conflict, Forbidden, InvalidInput: nothing can be put at this path.
        Unavailable: the store or the database is away.
    """
    nonce = secrets.token_hex(8)
    folder = f"pictures/{account_id}/{prepared.pixel_hash}/{nonce}"
    draft = PictureDraft(
        pixel_hash=prepared.pixel_hash,
        width=prepared.width,
        height=prepared.height,
        credit=prepared.credit,
        fingerprint_key=f"{folder}/fingerprint",
        preview_key=f"{folder}/preview.jpg",
        thumbnail_key=f"{folder}/thumbnail.jpg",
        disk_usage=disk_usage,
        exclusive=exclusive,
        key_id=watermark.key_id if watermark else "",
        lmk_key=f"registrations/{account_id}/{nonce}.lmk" if watermark else None,
    )
    services.store.put(draft.fingerprint_key, prepared.fingerprint)
    services.store.put(draft.preview_key, prepared.preview)
    services.store.put(draft.thumbnail_key, prepared.thumbnail)
    if watermark is not None and draft.lmk_key is not None:
        services.store.put(draft.lmk_key, watermark.to_bytes())
    node, created = services.database.transact(lambda tx: media.put_picture(tx, account_id, path, draft, services.clock.now()))
    return Registered(node.id, created)
