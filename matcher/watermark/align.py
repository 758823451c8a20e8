"""Laying a query over the registered picture, on the canonical grid: features first, then a fine step on the pixels.

Nothing here sees a key, so whatever it chooses costs the p-value nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np

from matcher.copies.correspondences import correspond
from matcher.copies.features import Fingerprint, fingerprint_gray, to_small
from matcher.copies.geometry import MODELS, Geometry, agree
from matcher.pixels import F32, F64, U8, flip, gray_from_jpeg, scaling
from matcher.watermark.errors import RegistrationInvalid
from matcher.watermark.keys import grid
from matcher.watermark.registration import Registration

_MIN_SCORE: Final = 1.0
_STEPS: Final = 30
_MIN_SEEN: Final = 2_000
_MAX_DRIFT: Final = 0.025
_WINDOW: Final = 25
_ALIKE: Final = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """`query`: luma of the query on the registered picture's grid (float32, H x W); `original`: the small picture there; `mask`: 1 where
    the query shows it; `transform`: 3 x 3, registered -> query, in pixels of the registered original and of the query as given."""

    query: F32
    original: F32
    mask: F32
    transform: F64

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the grid."""
        return self.mask.shape[1], self.mask.shape[0]


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """The registered small picture, decoded once: luma on the grid, at its own size, and its features."""

    size: tuple[int, int]
    small: U8
    original: F32
    fingerprint: Fingerprint


@lru_cache(64)
def reference(registration: Registration) -> Reference:
    """What alignment needs of a registration. Raises RegistrationInvalid."""
    try:
        small = gray_from_jpeg(registration.small)
    except ValueError as error:
        raise RegistrationInvalid(f"the registration's small picture cannot be read: {error}") from error
    size = grid(registration.width, registration.height)
    original = np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_CUBIC), np.float32)
    return Reference(size, small, original, fingerprint_gray(small, (registration.width, registration.height)))


def align(query: U8, registration: Registration, print_: Fingerprint | None = None) -> Aligned | None:
    """The query (H x W luma) over the registered picture; None where it shows another picture.

    `print_` is the query's fingerprint, in pixels of `query`, where it is there already. Raises RegistrationInvalid.
    """
    known = reference(registration)
    size = (query.shape[1], query.shape[0])
    seen = print_ or fingerprint_gray(query)
    best = _locate(known.fingerprint, seen)
    if best is None:
        return None
    geometry, flipped = best
    transform = np.linalg.inv(scaling(size, seen.small)) @ geometry.transform @ to_small(known.fingerprint)
    image = np.ascontiguousarray(query[:, ::-1]) if flipped else query
    aligned = _lay(image, known, transform, (registration.width, registration.height))
    if aligned is None:
        return None
    back = flip(size[0]) @ aligned.transform if flipped else aligned.transform
    return Aligned(aligned.query, aligned.original, aligned.mask, back / back[2, 2])


def _locate(registered: Fingerprint, query: Fingerprint) -> tuple[Geometry, bool] | None:
    tests = 2 * len(MODELS)
    found = [
        (geometry, bool(flipped))
        for flipped, pairs in enumerate(correspond(registered, query))
        for model in MODELS
        if (geometry := agree(pairs, registered.small, query.small, model, tests, _MIN_SCORE)) is not None
    ]
    return max(found, key=lambda f: f[0].score, default=None)


def _lay(query: U8, known: Reference, transform: F64, size: tuple[int, int]) -> Aligned | None:
    """The query on the grid, by the transform and then by the fine step; None where nearly nothing is seen."""
    on_grid = scaling(size, known.size)
    to_query = transform @ np.linalg.inv(on_grid)
    to_query = _fine(query, known, to_query)
    warped, mask = _warp(query, to_query, known.size)
    if mask.sum() < _MIN_SEEN:
        return None
    return Aligned(warped, known.original, mask, to_query @ on_grid)


def _warp(query: U8, to_query: F64, size: tuple[int, int]) -> tuple[F32, F32]:
    """The query sampled at each pixel of the grid (area-averaged where it is finer), and where it has any."""
    shrink = float(np.sqrt(abs(np.linalg.det(to_query[:2, :2]))))
    source = query.astype(np.float32)
    if shrink > 1.2:
        source = np.asarray(cv2.GaussianBlur(source, (0, 0), 0.4 * shrink), np.float32)
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(source, to_query, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
    seen = np.ones(query.shape, np.float32)
    mask = cv2.warpPerspective(seen, to_query, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(warped, np.float32), np.asarray(mask > 0.99, np.float32)


def _fine(query: U8, known: Reference, to_query: F64) -> F64:
    """Enhanced correlation (Evangelidis and Psarakis 2008) at the small picture's size; unchanged where it leads away from the features."""
    height, width = known.small.shape
    half = scaling(known.size, (width, height))
    small = known.small.astype(np.float32)
    rough, seen = _warp(query, to_query @ np.linalg.inv(half), (width, height))
    inner = cv2.erode(seen, np.ones((9, 9), np.uint8))
    agrees = np.asarray(inner * _agreement(small, rough) * 255, np.uint8)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, 1e-5)
    start = np.eye(3, dtype=np.float32)
    try:
        found = cv2.findTransformECC(small, rough, start, cv2.MOTION_HOMOGRAPHY, stop, agrees, 5)[1]
    except cv2.error:
        return to_query
    step = np.asarray(found, float)
    return np.asarray(to_query @ np.linalg.inv(half) @ step @ half) if _drift(step, seen) < _MAX_DRIFT * max(width, height) else to_query


def _agreement(a: F32, b: F32) -> F32:
    """1 where both pictures look alike, 0 under what was laid over one of them: it would pull the alignment to itself."""
    a, b = np.asarray(cv2.GaussianBlur(a, (0, 0), 2), np.float32), np.asarray(cv2.GaussianBlur(b, (0, 0), 2), np.float32)
    mean_a, mean_b = _mean(a), _mean(b)
    var_a, var_b = np.maximum(_mean(a * a) - mean_a**2, 0), np.maximum(_mean(b * b) - mean_b**2, 0)
    ncc = (_mean(a * b) - mean_a * mean_b) / np.sqrt((var_a + 1) * (var_b + 1))
    alike = np.asarray(ncc > _ALIKE, np.float32)
    return alike if alike.mean() > 0.05 else np.ones_like(alike)


def _mean(image: F32) -> F32:
    return np.asarray(cv2.boxFilter(image, -1, (_WINDOW, _WINDOW)), np.float32)


def _drift(step: F64, seen: F32) -> float:
    """How far (pixels) the corners of what is seen move."""
    x, y, width, height = cv2.boundingRect(np.asarray(seen > 0, np.uint8))
    corners = np.array([[x, x + width, x, x + width], [y, y, y + height, y + height]], float)
    moved = step @ np.vstack([corners, np.ones(4)])
    drift = np.abs(moved[:2] / moved[2] - corners).max()
    return float(drift) if np.isfinite(drift) else float("inf")
