"""What is kept of a picture to find its copies: local features and a small gray thumbnail.

Features (`matcher.copies.sift`) are taken on a small gray picture.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Final

import cv2
import msgspec
import numpy as np

from matcher.copies.sift import extract
from matcher.pixels import F32, F64, U8, check_rgb, fit, flip, gray, gray_from_jpeg, jpeg, resized, scaling

SIDE: Final = 256
"""Long side of the gray picture that features are taken on."""
THUMBNAIL_SIDE: Final = 256
POINTS: Final = 300
_MAGIC: Final = b"FGF1"


class FingerprintInvalid(ValueError):
    """The bytes are no fingerprint of a version that this program reads."""


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """`points`: n x 4 float32 (x, y, size, angle in degrees) in pixels of the small picture, whose long side is `SIDE`;
    `descriptors`: n x 128 uint8; `thumbnail`: gray JPEG, long side `THUMBNAIL_SIDE`; `width`, `height`: of the original."""

    width: int
    height: int
    points: F32
    descriptors: U8
    thumbnail: bytes

    @property
    def small(self) -> tuple[int, int]:
        """(width, height) of the small picture."""
        return fit(self.width, self.height, SIDE)

    def to_bytes(self) -> bytes:
        """Versioned, with a checksum."""
        body = msgspec.msgpack.encode(
            _Stored(
                self.width,
                self.height,
                self.points.astype("<f4").tobytes(),
                np.ascontiguousarray(self.descriptors).tobytes(),
                self.thumbnail,
            )
        )
        return _MAGIC + zlib.crc32(body).to_bytes(4, "big") + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Fingerprint:
        """Raises FingerprintInvalid."""
        stored = _stored(data)
        count = len(stored.points) // 16
        if len(stored.points) != 16 * count or len(stored.descriptors) != 128 * count or min(stored.width, stored.height) < 1:
            raise FingerprintInvalid("the fingerprint's parts do not fit together")
        points = np.frombuffer(stored.points, "<f4").astype(np.float32).reshape(-1, 4)
        return cls(stored.width, stored.height, points, np.frombuffer(stored.descriptors, np.uint8).reshape(-1, 128), stored.thumbnail)


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    width: int
    height: int
    points: bytes
    descriptors: bytes
    thumbnail: bytes


def _stored(data: bytes) -> _Stored:
    if data[:4] != _MAGIC:
        raise FingerprintInvalid("not a fingerprint, or one of a newer version")
    if zlib.crc32(data[8:]).to_bytes(4, "big") != data[4:8]:
        raise FingerprintInvalid("the fingerprint's checksum does not fit")
    try:
        return msgspec.msgpack.decode(data[8:], type=_Stored)
    except msgspec.MsgspecError as error:
        raise FingerprintInvalid(f"the fingerprint cannot be read: {error}") from error


def fingerprint(rgb: U8, size: tuple[int, int] | None = None) -> Fingerprint:
    """The picture's fingerprint. `size` is the original's (width, height) where `rgb` was decoded smaller. Raises ValueError."""
    check_rgb(rgb)
    return fingerprint_gray(gray(rgb), size)


def fingerprint_gray(image: U8, size: tuple[int, int] | None = None) -> Fingerprint:
    """Like `fingerprint`, of an H x W luma picture."""
    width, height = size or (image.shape[1], image.shape[0])
    small = cv2.resize(
        image,
        fit(width, height, SIDE),
        interpolation=cv2.INTER_AREA if max(image.shape) > SIDE else cv2.INTER_CUBIC,
    )
    points, descriptors = extract(np.asarray(small, np.uint8), POINTS)
    return Fingerprint(width, height, points, descriptors, jpeg(resized(image, THUMBNAIL_SIDE), 85))


def mirrored(print_: Fingerprint) -> Fingerprint:
    """The fingerprint of the picture flipped left to right, without touching pixels: a SIFT descriptor's mirror is a permutation."""
    points = print_.points.copy()
    points[:, 0] = print_.small[0] - 1 - points[:, 0]
    points[:, 3] = (180.0 - points[:, 3]) % 360.0
    thumbnail = jpeg(np.ascontiguousarray(thumbnail_of(print_)[:, ::-1]), 92)
    return replace(print_, points=points, descriptors=print_.descriptors[:, MIRROR], thumbnail=thumbnail)


def _mirror_order() -> list[int]:
    row, column, bin_ = np.indices((4, 4, 8))
    return [int(i) for i in ((3 - row) * 32 + column * 8 + (8 - bin_) % 8).ravel()]


MIRROR: Final = _mirror_order()


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
