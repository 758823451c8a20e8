"""Embedding: the key's pattern is added to the luma, as strongly as the picture hides it."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from matcher.pixels import F32, U8, check_rgb, gray, jpeg, pixel_hash, resized
from matcher.watermark.errors import NotSupported
from matcher.watermark.keys import KEY_BYTES, grid, new_key, pattern, strength
from matcher.watermark.registration import Registration

MIN_PSNR: Final = 45.0
SMALL_SIDE: Final = 512
_SMALL_BYTES: Final = 44_000
_MIN_SIDE: Final = 32


def embed(
    rgb: U8, *, key: bytes | None = None, payload: int | None = None, secret: str | None = None, transactional: bool = False
) -> tuple[U8, Registration]:
    """The marked picture (H x W x 3 uint8) and the registration that finds the mark again.

    Raises:
        ValueError: not a picture, smaller than 32 pixels, or a key that has not 32 bytes.
        NotSupported: payload, secret or transactional were asked for.
    """
    check_rgb(rgb)
    if payload is not None or secret is not None or transactional:
        raise NotSupported("payload, secret and transactional watermarks are not built yet")
    if min(rgb.shape[:2]) < _MIN_SIDE:
        raise ValueError(f"a picture to be marked has sides of at least {_MIN_SIDE} pixels")
    key = new_key() if key is None else key
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes")
    height, width = rgb.shape[:2]
    return mark(rgb, key), Registration(key, small_picture(rgb), width, height, pixel_hash(rgb))


def mark(rgb: U8, key: bytes) -> U8:
    """The picture with the key's pattern in it."""
    height, width = rgb.shape[:2]
    size = grid(width, height)
    luma = cv2.resize(gray(rgb), size, interpolation=cv2.INTER_AREA if width > size[0] else cv2.INTER_LINEAR)
    change = pattern(key, size) * strength(np.asarray(luma, np.uint8))
    change = np.asarray(cv2.resize(change, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    power = float(np.mean(change * change))
    allowed = 255.0**2 / 10 ** (MIN_PSNR / 10)
    return _add(rgb, change * np.float32(min(1.0, np.sqrt(allowed / max(power, 1e-9)))))


def _add(rgb: U8, change: F32) -> U8:
    return np.asarray(np.clip(np.rint(rgb + change[..., None]), 0, 255), np.uint8)


def small_picture(rgb: U8) -> bytes:
    """A JPEG of the original, long side at most 512, at the best quality that fits a registration."""
    side = min(SMALL_SIDE, max(rgb.shape[:2]))
    small = resized(rgb, side)
    for quality in (92, 85, 75, 60, 45):
        data = jpeg(small, quality)
        if len(data) <= _SMALL_BYTES:
            break
    return data
