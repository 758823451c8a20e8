"""Registering a picture: decode, fingerprint, previews and thumbnail; objects first, then one transaction.

It comes as itself, or as the registration of a watermark, which has a small version of it. Registrations lie in the store without that
one: all keys of a picture are looked for with the same.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from core.errors import Conflict, FiligraneError, InvalidInput, ObjectMissing
from core.imageinfo import image_info
from core.models import Static
from core.repo import media, pictures
from core.repo.pictures import PictureDraft
from core.services import Services
from matcher.copies import features
from matcher.decode import DECODED_SIDE, FORMATS, decode, shrunk
from matcher.marking import LOOKED_AT
from matcher.pixels import U8, fit, jpeg, pixel_hash, resized_to
from matcher.watermark.embed import embed
from matcher.watermark.errors import RegistrationInvalid, WatermarkError
from matcher.watermark.keys import GRID
from matcher.watermark.registration import Registration
from matcher.watermark.small import check_small, small_picture

PREVIEW_SIDE: Final = 1280
THUMBNAIL_SIDE: Final = 320
_QUALITY: Final = 85
_SHAPE: Final = 0.02
"""How much the shape of a small picture may differ from the original's, for its rounded sides, beside one pixel."""

T = TypeVar("T")


class PreparedPicture(NamedTuple):
    """What is stored of a picture that is being registered. `pixel_hash`: hex SHA-256 of the original's upright pixels."""

    pixel_hash: str
    width: int
    height: int
    credit: str | None
    fingerprint: bytes
    preview: bytes
    thumbnail: bytes
    marked: bytes | None = None
    """The preview that carries the mark; None where there is no key, or its mark takes a passphrase."""
    reduced: bool = False
    """Made of a small picture; the original was not there."""


class Registered(NamedTuple):
    media_id: int
    created: bool
    """False where it replaced another media at the path."""


def prepare(data: bytes, registration: Registration | None = None) -> PreparedPicture:
    """Everything that takes processor time; for `Decoders.run`. `registration`: of the watermark that the picture was given.

    Raises InvalidImage, UnsupportedMedia.
    """
    rgb, size = decode(data, formats=FORMATS if registration is None else LOOKED_AT)
    preview = shrunk(rgb, PREVIEW_SIDE)
    return PreparedPicture(
        pixel_hash(rgb).hex(),
        *size,
        image_info(data).credit,
        features.registered(shrunk(rgb, DECODED_SIDE), size).to_bytes(),
        jpeg(preview, _QUALITY),
        jpeg(shrunk(preview, THUMBNAIL_SIDE), _QUALITY),
        _marked(rgb, registration) if registration is not None else None,
    )


def prepare_registration(registration: Registration) -> PreparedPicture:
    """The same of a registration alone, from its small picture; for `Decoders.run`. Raises InvalidInput, code invalid_registration."""
    size = (registration.width, registration.height)
    try:
        check_small(registration.small)
        small, (width, height) = decode(registration.small)
    except (FiligraneError, RegistrationInvalid) as error:
        raise InvalidInput("the registration's small picture cannot be read", code="invalid_registration") from error
    if abs(width * size[1] - height * size[0]) > max(size) * (1 + _SHAPE * min(width, height)):
        raise InvalidInput("the registration's small picture has not the shape of the original", code="invalid_registration")
    marked = _marked(small, registration)
    preview = jpeg(shrunk(small, PREVIEW_SIDE), _QUALITY) if marked is None else marked
    return PreparedPicture(
        registration.pixel_hash.hex(),
        *size,
        None,
        features.registered(shrunk(small, DECODED_SIDE), size).to_bytes(),
        preview,
        jpeg(shrunk(small, THUMBNAIL_SIDE), _QUALITY),
        marked,
        reduced=True,
    )


def _marked(rgb: U8, registration: Registration) -> bytes | None:
    """A preview (JPEG) with the registration's mark in it, of a size that has the same grid as the original."""
    if registration.secret:
        return None
    original = (registration.width, registration.height)
    shown = resized_to(rgb, min(original, fit(*original, GRID)))
    try:
        return jpeg(embed(shown, key=registration.key, payload=0 if registration.payload else None)[0], _QUALITY)
    except (WatermarkError, ValueError):  # so long and narrow that it is too small for a mark
        return None


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
        reduced=prepared.reduced,
    )
    objects = {
        draft.fingerprint_key: prepared.fingerprint,
        draft.preview_key: prepared.preview,
        draft.thumbnail_key: prepared.thumbnail,
    }
    if watermark is not None:
        draft = replace(draft, key_id=watermark.key_id, lmk_key=_lmk_key(account_id, nonce), small_key=f"{folder}/small")
        objects |= {_lmk_key(account_id, nonce): _without_small(watermark), f"{folder}/small": watermark.small}
        if prepared.marked is not None:
            marked_key = f"{folder}/{'preview' if prepared.marked == prepared.preview else 'marked'}.jpg"
            draft, objects[marked_key] = replace(draft, marked_key=marked_key), prepared.marked
    return _put(services, account_id, path, draft, objects)


class Run(Protocol):
    """Calls a function, here or in a process that may die: `Decoders.run`, `here`."""

    def __call__(self, function: Callable[..., T], /, *args: Any) -> T: ...


def here(function: Callable[..., T], /, *args: Any) -> T:
    return function(*args)


def register_mark(
    services: Services,
    account_id: int,
    path: str,
    watermark: Registration,
    run: Run,
    *,
    disk_usage: int,
    exclusive: bool | None = None,
) -> Registered:
    """Puts the media of a registration at the path, without the original; a transactional one is one more key of a picture that is
    registered already.

    Raises:
        Conflict: also where that picture is not registered (code original_not_registered).
        InvalidInput: also for a registration whose small picture is none (code invalid_registration).
        Forbidden, Unavailable: as `register`.
    """
    if watermark.transactional:
        return _register_again(services, account_id, path, watermark, run, disk_usage, exclusive)
    prepared = run(prepare_registration, watermark)
    return register(services, account_id, path, prepared, disk_usage=disk_usage, exclusive=exclusive, watermark=watermark)


def _register_again(
    services: Services, account_id: int, path: str, watermark: Registration, run: Run, disk_usage: int, exclusive: bool | None
) -> Registered:
    found = original_of(services, account_id, watermark, run)
    if found is None:
        raise Conflict("the original of this transactional registration is not registered", code="original_not_registered")
    nonce = secrets.token_hex(8)
    pixels = watermark.pixel_hash.hex()
    lmk_key, small_key = _lmk_key(account_id, nonce), f"pictures/{account_id}/{pixels}/{nonce}/small"
    draft = PictureDraft(pixels, 0, 0, None, "", "", "", disk_usage, watermark.key_id, lmk_key, exclusive, small_key, transactional=True)
    objects = {lmk_key: _without_small(watermark), small_key: found.small}
    if found.stored:
        draft = replace(draft, small_key=None)
        del objects[small_key]
    return _put(services, account_id, path, draft, objects)


class Original(NamedTuple):
    """The small picture of a registered original; `stored`: it is an object of its own, not just made of the preview."""

    small: bytes
    stored: bool


def original_of(services: Services, account_id: int, watermark: Registration, run: Run) -> Original | None:
    """What a transactional registration lacks, where the account has registered its original. Raises Unavailable."""
    with services.database.read() as tx:
        picture = pictures.by_pixels(tx, account_id, watermark.pixel_hash.hex())
        if picture is None:
            return None
        preview = tx.get_one(Static, picture.preview_id).key
    try:
        if picture.small_key is not None:
            return Original(services.store.get(picture.small_key), True)
        return Original(run(_small_of_preview, services.store.get(preview)), False)
    except ObjectMissing:  # deleted meanwhile
        return None


def _small_of_preview(data: bytes) -> bytes:
    """A small picture as registrations have it. Previews of pictures without a key are not marked."""
    return small_picture(decode(data)[0])


def _lmk_key(account_id: int, nonce: str) -> str:
    return f"registrations/{account_id}/{nonce}.lmk"


def _without_small(watermark: Registration) -> bytes:
    return replace(watermark, small=b"").to_bytes()


def _put(services: Services, account_id: int, path: str, draft: PictureDraft, objects: Mapping[str, bytes]) -> Registered:
    for key, data in objects.items():
        services.store.put(key, data)
    node, created = services.database.transact(
        partial(media.put_picture, account_id=account_id, path=path, draft=draft, now=services.clock.now())
    )
    return Registered(node.id, created)
