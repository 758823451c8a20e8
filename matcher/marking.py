"""Marking a picture and detecting a mark, bytes in and bytes out: what decoder processes do for the API."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from core.errors import FiligraneError, InvalidImage, InvalidInput, UnsupportedMedia
from core.imageinfo import image_info
from matcher.decode import FORMATS, Limits, decode, shrunk
from matcher.pixels import pixel_hash, scaling
from matcher.watermark import lmk
from matcher.watermark.detect import detect
from matcher.watermark.errors import PictureInvalid, RegistrationInvalid
from matcher.watermark.picture_file import check_size, mark_file
from matcher.watermark.registration import Registration
from matcher.watermark.small import small_picture

LIMITS: Final = Limits(seconds=120)
"""Of one piece of this work: a file of 100 megapixels is decoded twice and encoded once."""
MARKED: Final = frozenset({"image/jpeg", "image/png", "image/webp", "image/tiff"})
"""Content types of what can be marked."""
LOOKED_AT: Final = FORMATS | {"image/tiff": "TIFF"}
"""What may carry a mark, as `decode.FORMATS`."""
QUERY_SIDE: Final = 2048
"""Long side that a query is shrunk to. Of whole pictures and crops neither this nor 1024 costs any z, as measured; where the picture is a
third of the query 1024 costs 8 % of z, this nothing."""


class Marked(NamedTuple):
    file: bytes
    """Of the original's kind."""
    registration: bytes
    """Sealed."""


class Found(NamedTuple):
    """As `detect` found it; `transform`: 9 numbers, row by row, registered -> query, in pixels of both as they came."""

    marked: bool
    p_value: float
    payload: int | None
    transform: list[float] | None


def mark(data: bytes, public_key: bytes, key: bytes, payload: int | None, secret: str | None, transactional: bool) -> Marked:
    """The marked file and its registration, sealed to the public key. Raises InvalidImage, UnsupportedMedia."""
    file, registration = marked(data, key=key, payload=payload, secret=secret, transactional=transactional)
    return Marked(file, lmk.seal(registration, lmk.read_public_key(public_key)))


def marked(
    data: bytes, *, key: bytes | None = None, payload: int | None = None, secret: str | None = None, transactional: bool = False
) -> tuple[bytes, Registration]:
    """What `mark_file` returns. Raises InvalidImage, UnsupportedMedia."""
    try:
        return mark_file(data, key=key, payload=payload, secret=secret, transactional=transactional)
    except PictureInvalid as error:
        raise _refused(error) from error


def check_markable(data: bytes) -> str:
    """The content type of a picture that can be marked, as far as its header tells. Raises what `marked` does."""
    info = image_info(data)
    if info.content_type is None:
        raise InvalidImage("the bytes are no picture")
    if info.content_type not in MARKED:
        raise UnsupportedMedia(f"JPEG, PNG, WebP and TIFF are marked; this is {info.content_type}")
    if info.width is not None and info.height is not None:
        try:
            check_size(info.width, info.height)
        except PictureInvalid as error:
            raise _refused(error) from error
    return info.content_type


def _refused(error: PictureInvalid) -> FiligraneError:
    kind = UnsupportedMedia if error.code == UnsupportedMedia.default_code else InvalidImage
    return kind(error.details, code=error.code)


def find(query: bytes, registration: Registration, secret: str | None, payload_max: int | None, original: bytes | None) -> Found:
    """Whether the query carries the registration's mark. `original`: the picture that a transactional registration belongs to.

    Raises:
        InvalidImage, UnsupportedMedia: query or original are no pictures.
        InvalidInput: the original is another one (code original_differs), the registration's small picture is none.
    """
    if registration.transactional and original is not None:
        registration = _completed(registration, original)
    rgb, size = decode(query, QUERY_SIDE, formats=LOOKED_AT)
    rgb = shrunk(rgb, QUERY_SIDE)
    try:
        found = detect(rgb, registration, secret=secret, payload_max=payload_max)
    except RegistrationInvalid as error:
        raise InvalidInput(error.details, code="invalid_registration") from error
    transform = None
    if found.transform is not None:
        grown = scaling((rgb.shape[1], rgb.shape[0]), size) @ found.transform
        transform = [float(value) for value in np.ravel(grown / grown[2, 2])]
    return Found(found.marked, found.p_value, found.payload, transform)


def _completed(registration: Registration, original: bytes) -> Registration:
    rgb, _ = decode(original, formats=LOOKED_AT)
    if pixel_hash(rgb) != registration.pixel_hash:
        raise InvalidInput("the original has other pixels than the one that was marked", code="original_differs")
    return replace(registration, small=small_picture(rgb))
