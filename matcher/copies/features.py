"""What is kept of a picture to find its copies: local features, how it looks as a whole, and a small gray thumbnail.

All are taken of a small gray picture; features of a registered one also of larger ones (`matcher.copies.stable`).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np

from matcher.copies.look import look
from matcher.copies.sift import DIMENSIONS, extract
from matcher.copies.stable import stable_features
from matcher.pixels import F32, F64, U8, check_rgb, fit, flip, gray, gray_from_jpeg, jpeg, resized, resized_to, scaling
from matcher.pixels import MAX_SIDE as MAX_PICTURE_SIDE

SIDE: Final = 256
"""Long side of the gray picture that features are taken on."""
THUMBNAIL_SIDE: Final = 256
POINTS: Final = 300
"""Features of a query; of a registered picture KEPT, of which the first INDEXED are looked up."""
KEPT: Final = 400
INDEXED: Final = 112
_MAGIC: Final = b"FGF2"
_UNITS: Final = np.array([1 / 128, 1 / 128, 1 / 128, 360 / 65_536], np.float32)
LEVEL: Final = 12
_TEXTURED: Final = 80
_SEEN_WHOLE: Final = 2.2  # diameter of the smallest features that are found where the whole picture is shown at SIDE
_CELLS: Final = 8


class FingerprintInvalid(ValueError):
    """The bytes are no fingerprint of a version that this program reads."""


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """`width`, `height`: of the original; `points`: n x 4 float32 (x, y, diameter, angle in degrees) in pixels of the small picture, whose
    long side is `SIDE`; `descriptors`: n x 128 uint8; `thumbnail`: gray JPEG, long side `THUMBNAIL_SIDE`; `look`: 128 x uint8 for the whole
    picture, empty where it shows nothing. Points and descriptors are rounded to what `to_bytes` keeps: bytes and back change nothing."""

    width: int
    height: int
    points: F32
    descriptors: U8
    thumbnail: bytes
    look: U8

    @property
    def small(self) -> tuple[int, int]:
        """(width, height) of the small picture."""
        return fit(self.width, self.height, SIDE)

    @property
    def textured(self) -> bool:
        """Whether it can be found when it was cropped, turned or covered; with too little texture only plain copies are found
        (`matcher.copies.plain`)."""
        seen = self.points[self.points[:, 2] >= _SEEN_WHOLE, :2]
        cells = np.unique((seen * (_CELLS / np.array(self.small))).astype(int), axis=0)
        return len(seen) >= _TEXTURED and len(cells) >= _CELLS**2 / 4

    def to_bytes(self) -> bytes:
        """Versioned, with a checksum; 72 bytes for each feature."""
        nibbles = self.descriptors // LEVEL
        body = msgspec.msgpack.encode(
            _Stored(
                self.width,
                self.height,
                (self.points / _UNITS).round().astype("<u2").tobytes(),
                (nibbles[:, ::2] << 4 | nibbles[:, 1::2]).tobytes(),
                self.thumbnail,
                self.look.tobytes(),
            )
        )
        return _MAGIC + zlib.crc32(body).to_bytes(4, "big") + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Fingerprint:
        """Raises FingerprintInvalid."""
        stored = _stored(data)
        points = np.frombuffer(stored.points, "<u2").reshape(-1, 4).astype(np.float32) * _UNITS
        pairs = np.frombuffer(stored.descriptors, np.uint8).reshape(-1, DIMENSIONS // 2)
        descriptors = np.stack([pairs >> 4, pairs & 15], axis=2).reshape(-1, DIMENSIONS) * np.uint8(LEVEL)
        return cls(stored.width, stored.height, points, descriptors, stored.thumbnail, np.frombuffer(stored.look, np.uint8))


class _Stored(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    width: int
    height: int
    points: bytes
    descriptors: bytes
    thumbnail: bytes
    look: bytes

    @property
    def fits(self) -> bool:
        count, odd = divmod(len(self.points), 8)
        sides = min(self.width, self.height) >= 1 and max(self.width, self.height) <= MAX_PICTURE_SIDE
        return sides and not odd and len(self.descriptors) == count * DIMENSIONS // 2 and len(self.look) in (0, DIMENSIONS)


def _stored(data: bytes) -> _Stored:
    if data[:4] != _MAGIC:
        raise FingerprintInvalid("not a fingerprint, or one of another version")
    if zlib.crc32(data[8:]).to_bytes(4, "big") != data[4:8]:
        raise FingerprintInvalid("the fingerprint's checksum does not fit")
    try:
        stored = msgspec.msgpack.decode(data[8:], type=_Stored)
    except msgspec.MsgspecError as error:
        raise FingerprintInvalid(f"the fingerprint cannot be read: {error}") from error
    if not stored.fits:
        raise FingerprintInvalid("the fingerprint's parts do not fit together")
    return stored


def _rounded(points: F32, descriptors: U8) -> tuple[F32, U8]:
    """Features as they are kept: points in `_UNITS`, descriptors in 16 levels (it costs no correspondence)."""
    levels = np.minimum((descriptors + np.uint8(LEVEL // 2)) // np.uint8(LEVEL), np.uint8(15))
    return (points / _UNITS).round().clip(0, 65_535).astype(np.float32) * _UNITS, levels * np.uint8(LEVEL)


def fingerprint(rgb: U8, size: tuple[int, int] | None = None) -> Fingerprint:
    """The picture's fingerprint. `size` is the original's (width, height) where `rgb` was decoded smaller. Raises ValueError."""
    check_rgb(rgb)
    return fingerprint_gray(gray(rgb), size)


def fingerprint_gray(image: U8, size: tuple[int, int] | None = None) -> Fingerprint:
    """Like `fingerprint`, of an H x W luma picture."""
    width, height = size or (image.shape[1], image.shape[0])
    small = resized_to(image, fit(width, height, SIDE))
    return _fingerprint((width, height), small, extract(small, POINTS))


def registered(rgb: U8, size: tuple[int, int] | None = None) -> Fingerprint:
    """Like `fingerprint`, of a picture to be found again: features of all sizes, those that come back in copies of it first."""
    check_rgb(rgb)
    return registered_gray(gray(rgb), size)


def registered_gray(image: U8, size: tuple[int, int] | None = None) -> Fingerprint:
    """Like `registered`, of an H x W luma picture. It takes some hundred times as long as `fingerprint_gray`."""
    width, height = size or (image.shape[1], image.shape[0])
    small = fit(width, height, SIDE)
    return _fingerprint((width, height), resized_to(image, small), stable_features(image, small, KEPT))


def _fingerprint(size: tuple[int, int], small: U8, features: tuple[F32, U8]) -> Fingerprint:
    return Fingerprint(*size, *_rounded(*features), jpeg(resized(small, THUMBNAIL_SIDE), 85), look(small))


def _mirror_order() -> list[int]:
    row, column, bin_ = np.indices((4, 4, 8))
    return [int(i) for i in ((3 - row) * 32 + column * 8 + (8 - bin_) % 8).ravel()]


MIRROR: Final = _mirror_order()
"""A descriptor (or look) in this order is that of the mirrored picture."""


def thumbnail_of(print_: Fingerprint) -> U8:
    """The gray thumbnail, H x W. Raises FingerprintInvalid."""
    try:
        return gray_from_jpeg(print_.thumbnail)
    except ValueError as error:
        raise FingerprintInvalid(str(error)) from error


def to_small(print_: Fingerprint) -> F64:
    """3 x 3 matrix from the original's pixels to those of the small picture."""
    return scaling((print_.width, print_.height), print_.small)


def unflip(print_: Fingerprint) -> F64:
    """3 x 3 matrix from the mirrored original's pixels to the original's (and back)."""
    return flip(print_.width)
