"""Embedding: the key's pattern is added to the luma, as strongly as the picture hides it.

The change is drawn on the canonical grid and enlarged to the picture by stripes of rows, so that a large picture takes little memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np

from matcher.pixels import F32, U8, check_rgb, gray, pixel_hash
from matcher.watermark.keys import KEY_BYTES, SCHEME, coefficients, grid, new_key, pattern, secret_key
from matcher.watermark.masking import POWER, strength
from matcher.watermark.payload import MAX_PAYLOAD, parts_of, signs
from matcher.watermark.registration import Registration
from matcher.watermark.small import small_picture

MIN_SIDE: Final = 64
"""Pixels of the shorter side at least of a picture that is marked."""
STRIPE: Final = 256
"""Rows that are worked on at a time."""


def embed(
    rgb: U8, *, key: bytes | None = None, payload: int | None = None, secret: str | None = None, transactional: bool = False
) -> tuple[U8, Registration]:
    """The marked picture (H x W x 3 uint8) and the registration that finds the mark again.

    Raises:
        ValueError: not a picture, smaller than 64 pixels, a key that has not 32 bytes, a payload that is not in 0..16777215, or an empty
            secret.
    """
    change, registration = draw(rgb, key=key, payload=payload, secret=secret, transactional=transactional)
    return add(rgb, change), registration


def draw(
    rgb: U8, *, key: bytes | None = None, payload: int | None = None, secret: str | None = None, transactional: bool = False
) -> tuple[F32, Registration]:
    """What marking adds to the luma of the picture (H x W x 3 uint8), in gray levels on its canonical grid (float32), and the registration.

    Raises what `embed` does.
    """
    check_rgb(rgb)
    if payload is not None and not 0 <= payload <= MAX_PAYLOAD:
        raise ValueError(f"a payload is a number from 0 to {MAX_PAYLOAD}")
    height, width = rgb.shape[:2]
    if min(width, height) < MIN_SIDE:
        raise ValueError(f"a picture to be marked has sides of at least {MIN_SIDE} pixels")
    key = new_key() if key is None else key
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes")
    reduced = _on_grid(rgb)
    # what has been made smaller need not be made smaller from the start
    small = b"" if transactional else small_picture(reduced if reduced.size < rgb.size else rgb)
    drawn_by = key if secret is None else secret_key(key, secret)
    registration = Registration(key, small, width, height, pixel_hash(rgb), payload is not None, secret is not None)
    return _change(gray(reduced), drawn_by, payload or 0), registration


def stripes(change: F32, size: tuple[int, int], step: int = STRIPE) -> Iterator[tuple[slice, F32]]:
    """The change for a picture of (width, height) `size`, from top to bottom: which rows, and what is added to each of their pixels."""
    width, height = size
    if width < change.shape[1]:
        change = np.asarray(cv2.resize(change, size, interpolation=cv2.INTER_LINEAR), np.float32)
    for top in range(0, height, step):
        rows = slice(top, min(top + step, height))
        yield rows, _enlarged(change, size, rows)


def _enlarged(change: F32, size: tuple[int, int], rows: slice) -> F32:
    """Some rows of the change, enlarged bilinearly to (width, height) `size`."""
    width, height = size
    at = np.clip((np.arange(rows.start, rows.stop) + 0.5) * change.shape[0] / height - 0.5, 0, change.shape[0] - 1)
    above = at.astype(int)
    below, part = np.minimum(above + 1, change.shape[0] - 1), (at - above).astype(np.float32)[:, None]
    between = change[above] * (1 - part) + change[below] * part
    return np.asarray(cv2.resize(between, (width, len(at)), interpolation=cv2.INTER_LINEAR), np.float32)


def add(rgb: U8, change: F32) -> U8:
    """The picture (H x W x 3 uint8) with the change, which is given on the canonical grid."""
    marked = np.empty_like(rgb)
    for rows, part in stripes(change, (rgb.shape[1], rgb.shape[0])):
        cv2.add(rgb[rows], cv2.merge([part] * 3), dst=marked[rows], dtype=cv2.CV_8U)  # rounds, and stays in 0..255
    return marked


def _on_grid(rgb: U8) -> U8:
    size = grid(rgb.shape[1], rgb.shape[0])
    how = cv2.INTER_AREA if size[0] < rgb.shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, size, interpolation=how), np.uint8)


def _change(luma: U8, key: bytes, payload: int) -> F32:
    """For the picture's luma on its grid."""
    size = luma.shape[1], luma.shape[0]
    drawn = coefficients(key, size)
    change = pattern(drawn * signs(key, len(drawn), payload, parts_of(SCHEME)), size) * strength(luma)
    power = float(np.mean(change * change))
    return change * np.float32(min(1.0, np.sqrt(POWER / max(power, 1e-9))))
