"""The small picture of a registration: how it is made of the original, and what alignment takes from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np

from matcher.copies.features import Fingerprint, fingerprint_gray
from matcher.copies.sift import extract
from matcher.pixels import F32, U8, gray_from_jpeg, jpeg, resized, scaling
from matcher.upright import opened
from matcher.watermark.errors import RegistrationInvalid
from matcher.watermark.keys import grid, halved
from matcher.watermark.pyramid import Pyramid
from matcher.watermark.registration import Registration

SMALL_SIDE: Final = 512
MAX_SIDE: Final = 1024
"""Pixels of a small picture's longer side at most that are read. What `small_picture` makes is below."""
_MAX_SCANS: Final = 16
"""A progressive JPEG has about ten. Thousands fit into few bytes, and each costs as much as a whole decoding."""
_START_OF_SCAN: Final = b"\xff\xda"
_SMALL_BYTES: Final = 44_000
_QUALITIES: Final = (92, 85, 75, 60, 45, 30, 20, 10)
"""The last fits noise in all colours."""
_POINTS: Final = 900


def small_picture(rgb: U8) -> bytes:
    """A JPEG of the original, long side at most 512, at the best quality that fits a registration."""
    small = resized(rgb, min(SMALL_SIDE, max(rgb.shape[:2])))
    data = b""
    for quality in _QUALITIES:
        data = jpeg(small, quality)
        if len(data) <= _SMALL_BYTES:
            break
    return data


def check_small(data: bytes) -> None:
    """Of a small picture, which anybody may have made: whether it is a JPEG that is read at no great cost. Raises RegistrationInvalid."""
    if not data:
        raise RegistrationInvalid("a transactional registration takes the small picture of a full one", code="original_required")
    try:
        with opened(data, ["JPEG"]) as image:
            side = max(image.size)
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise RegistrationInvalid("the registration's small picture is no JPEG") from error
    # within a scan the two bytes stand for nothing else
    if side > MAX_SIDE or data.count(_START_OF_SCAN) > _MAX_SCANS:
        raise RegistrationInvalid(f"the registration's small picture has more than {MAX_SIDE} pixels a side or {_MAX_SCANS} scans")


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The registered small picture, decoded once. `size`: (width, height) of the original; `grid`: of its canonical grid; `small`: luma;
    `pyramid`: the same, halved again and again; `half`: the same (float32) with half as many pixels as the grid each way; `fingerprint`:
    its features."""

    size: tuple[int, int]
    grid: tuple[int, int]
    small: U8
    pyramid: Pyramid
    half: F32
    fingerprint: Fingerprint


@lru_cache(32)
def reference(registration: Registration) -> Reference:
    """What alignment needs of a registration. Raises RegistrationInvalid."""
    return _reference(registration.small, (registration.width, registration.height), registration.scheme)


@lru_cache(32)
def _reference(data: bytes, size: tuple[int, int], scheme: int) -> Reference:
    """Of all registrations of one picture it is the same."""
    check_small(data)
    try:
        small = gray_from_jpeg(data)
    except ValueError as error:
        raise RegistrationInvalid(f"the registration's small picture cannot be read: {error}") from error
    canonical, pyramid = grid(*size, scheme), Pyramid.of(small)
    half = halved(canonical)
    return Reference(size, canonical, small, pyramid, pyramid.warp(scaling(half, pyramid.size), half), fingerprint_gray(small, size))


@lru_cache(32)
def with_finer_features(known: Reference) -> Fingerprint:
    """The fingerprint together with the features of the small picture at its own size: small ones are all that a crop shows."""
    coarse = known.fingerprint
    points, descriptors = extract(known.small, _POINTS)
    to_coarse = scaling((known.small.shape[1], known.small.shape[0]), coarse.small)
    moved = points.copy()
    moved[:, :2] = points[:, :2] * to_coarse[[0, 1], [0, 1]] + to_coarse[:2, 2]
    moved[:, 2] *= to_coarse[0, 0]
    return replace(coarse, points=np.concatenate([coarse.points, moved]), descriptors=np.concatenate([coarse.descriptors, descriptors]))
