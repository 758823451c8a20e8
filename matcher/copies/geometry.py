"""Where one picture lies in another: correspondences of features, and the transform that most of them agree on.

Points are in pixels of the small pictures (long side `features.SIDE`). A transform maps the registered picture to the query. How unlikely
it is that as many points agree by chance is counted a contrario (Moisan and Stival 2004): the number of false alarms (NFA).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log, pi
from typing import Final, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from matcher.copies.features import SIDE, Fingerprint
from matcher.pixels import F32, F64, U8

Model = Literal["scale", "affine", "perspective"]
MODELS: Final[tuple[Model, ...]] = get_args(Model)
_FREE: Final = {"scale": 2, "affine": 3, "perspective": 4}

TOLERANCE: Final = 0.01 * SIDE
_RATIO: Final = 0.92
_TRIALS: Final = 600
_BEST: Final = 8
_MAX_TILT: Final = np.deg2rad(20.0)
_MAX_STRETCH: Final = 2.0
_LN10: Final = log(10.0)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Corresponding points: n x 2 each, and how much larger (ratio) and turned (radians) the query's feature is."""

    registered: F64
    query: F64
    scale: F64
    turn: F64


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """`transform`: 3 x 3, registered -> query, in small pixels; `score`: -log10 of the expected number of chance agreements as good."""

    transform: F64
    inliers: int
    score: float


def correspond(registered: Fingerprint, query: Fingerprint) -> Pairs:
    """Features that are each other's nearest, and clearly nearer than the second nearest (Lowe's ratio)."""
    if min(len(registered.points), len(query.points)) < 2:
        return _pairs(registered.points[:0], query.points[:0])
    distances = _distances(registered.descriptors, query.descriptors)
    nearest = distances.argmin(axis=1)
    rows = np.arange(len(distances))
    best = distances[rows, nearest]
    mutual = distances.argmin(axis=0)[nearest] == rows
    distances[rows, nearest] = np.inf
    clear = best < _RATIO**2 * distances.min(axis=1)
    chosen = np.flatnonzero(mutual & clear)
    return _pairs(registered.points[chosen], query.points[nearest[chosen]])


def _distances(a: U8, b: U8) -> F32:
    left, right = a.astype(np.float32), b.astype(np.float32)
    return np.asarray((left**2).sum(1)[:, None] + (right**2).sum(1) - 2 * left @ right.T, np.float32)


def _pairs(registered: F32, query: F32) -> Pairs:
    turn = np.deg2rad((query[:, 3] - registered[:, 3] + 180.0) % 360.0 - 180.0)
    scale = query[:, 2] / np.maximum(registered[:, 2], 1e-3)
    return Pairs(registered[:, :2].astype(float), query[:, :2].astype(float), scale.astype(float), turn.astype(float))


def locate(registered: Fingerprint, query: Fingerprint, model: Model = "scale", tests: int = 1) -> Geometry | None:
    """The transform of `model` that the most correspondences support; None where none is better than chance.

    `tests` is how many pictures and mirrors are tried in all: it multiplies the expected number of chance agreements.
    """
    return agree(correspond(registered, query), registered.small, query.small, model, tests)


def agree(pairs: Pairs, registered: tuple[int, int], query: tuple[int, int], model: Model, tests: int = 1) -> Geometry | None:
    """Like `locate`, for correspondences that are known; `registered` and `query` are the (width, height) of the small pictures."""
    if model == "scale":
        pairs = _keep(pairs, np.abs(pairs.turn) < _MAX_TILT)
    count = len(pairs.query)
    if count <= _FREE[model]:
        return None
    alpha = min(0.5, pi * TOLERANCE**2 / (query[0] * query[1]))
    found = [_refine(pairs, start, model) for start in _hypotheses(pairs, model)]
    best = max(found, key=lambda f: f[1], default=None)
    if best is None or best[1] <= _FREE[model]:
        return None
    score = -log_nfa(count, best[1], _FREE[model], alpha) - np.log10(max(1, tests))
    return Geometry(best[0], best[1], float(score)) if score > 0 and _sane(best[0], registered) else None


def log_nfa(count: int, inliers: int, free: int, alpha: float) -> float:
    """log10 of the expected number of sets of `inliers` among `count` random pairs that agree with a transform fixed by `free` of them."""
    if inliers <= free:
        return float("inf")

    def choose(n: int, k: int) -> float:
        return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / _LN10

    return log(count - free) / _LN10 + choose(count, inliers) + choose(inliers, free) + (inliers - free) * log(alpha) / _LN10


def _keep(pairs: Pairs, mask: npt.NDArray[np.bool_]) -> Pairs:
    return Pairs(pairs.registered[mask], pairs.query[mask], pairs.scale[mask], pairs.turn[mask])


def _hypotheses(pairs: Pairs, model: Model) -> list[F64]:
    """The best few of many transforms, each fixed by two correspondences: a similarity, or for `scale` one without rotation."""
    count = len(pairs.query)
    draw = np.random.default_rng(count)
    i, j = draw.integers(0, count, _TRIALS), draw.integers(0, count, _TRIALS)
    far = np.abs(pairs.registered[i] - pairs.registered[j]).max(axis=1) > 4 * TOLERANCE
    i, j = i[far], j[far]
    a, b = _complex(pairs.registered), _complex(pairs.query)
    if not len(i):
        return []
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = (b[i] - b[j]) / (a[i] - a[j])
    if model == "scale":
        factor = np.where(np.abs(np.angle(factor)) < _MAX_TILT, np.abs(factor), np.nan).astype(complex)
    # the features' own size and direction have to agree with the hypothesis: this keeps repeated letters out
    with np.errstate(divide="ignore", invalid="ignore"):
        stretch = np.abs(np.log(np.abs(factor) / pairs.scale[i]))
        ok = np.isfinite(factor) & (np.abs(factor) > 0.02) & (np.abs(factor) < 50) & (stretch < log(_MAX_STRETCH))
    factor, i, j = factor[ok], i[ok], j[ok]
    shift = (b[i] + b[j] - factor * (a[i] + a[j])) / 2
    errors = np.abs(factor[:, None] * a[None, :] + shift[:, None] - b[None, :])
    support = (errors < 3 * TOLERANCE).sum(axis=1)
    order = np.argsort(-support, kind="stable")[:_BEST]
    return [_similarity(complex(factor[k]), complex(shift[k])) for k in order]


def _complex(points: F64) -> npt.NDArray[np.complex128]:
    return np.asarray(points[:, 0] + 1j * points[:, 1])


def _similarity(factor: complex, shift: complex) -> F64:
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag], [0.0, 0.0, 1.0]])


def _refine(pairs: Pairs, start: F64, model: Model) -> tuple[F64, int]:
    """Least squares over the pairs that agree, with a tolerance that shrinks; the transform and how many different points agree."""
    transform = start
    for tolerance in (3.0, 2.0, 1.4, 1.0, 1.0):
        inside = residuals(transform, pairs.registered, pairs.query) < tolerance * TOLERANCE
        better = fit(pairs.registered[inside], pairs.query[inside], model)
        if better is None:
            break
        transform = better
    inside = residuals(transform, pairs.registered, pairs.query) < TOLERANCE
    return transform, _distinct(pairs, inside)


def _distinct(pairs: Pairs, inside: npt.NDArray[np.bool_]) -> int:
    """Points in one spot (several orientations or sizes of one corner) are not independent: they count once."""
    spots = np.round(np.hstack([pairs.registered[inside], pairs.query[inside]]) / TOLERANCE).astype(int)
    return min(len(np.unique(spots[:, :2], axis=0)), len(np.unique(spots[:, 2:], axis=0))) if len(spots) else 0


def residuals(transform: F64, source: F64, target: F64) -> F64:
    """Distance of each transformed point (n x 2) to its partner; infinite where it falls behind the picture plane."""
    moved = np.c_[source, np.ones(len(source))] @ transform.T
    with np.errstate(divide="ignore", invalid="ignore"):
        where = moved[:, :2] / moved[:, 2:]
    return np.where(moved[:, 2] > 1e-6, np.hypot(*(where - target).T), np.inf)


def fit(source: F64, target: F64, model: Model) -> F64 | None:
    """The transform of `model` that maps `source` to `target` (n x 2 each) with least squares; None where they do not fix one."""
    if len(source) <= _FREE[model]:
        return None
    if model == "scale":
        return _fit_axes(source, target)
    if model == "perspective":
        found, _ = cv2.findHomography(source, target, 0)
        return None if found is None or not np.isfinite(found).all() else np.asarray(found, float)
    solution, _, rank, _ = np.linalg.lstsq(np.c_[source, np.ones(len(source))], target, rcond=None)
    return np.vstack([solution.T, [0.0, 0.0, 1.0]]) if rank == 3 else None


def _fit_axes(source: F64, target: F64) -> F64 | None:
    """Scale and shift along each axis; one common scale where an axis has too little extent to tell."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    power, joint = (a * a).sum(axis=0), (a * b).sum(axis=0)
    if power.sum() < 1e-9:
        return None
    common = joint.sum() / power.sum()
    factors = np.where(power > 0.05 * power.sum(), joint / np.maximum(power, 1e-9), common)
    shift = target.mean(axis=0) - factors * source.mean(axis=0)
    return np.array([[factors[0], 0.0, shift[0]], [0.0, factors[1], shift[1]], [0.0, 0.0, 1.0]])


def _sane(transform: F64, size: tuple[int, int]) -> bool:
    """Neither folded nor mirrored nor squashed: the registered picture's outline stays convex, its sides within a factor."""
    width, height = size
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], float) @ transform.T
    if (corners[:, 2] <= 1e-6).any():
        return False
    outline = corners[:, :2] / corners[:, 2:]
    sides = np.roll(outline, -1, axis=0) - outline
    turns = sides[:, 0] * np.roll(sides, -1, axis=0)[:, 1] - sides[:, 1] * np.roll(sides, -1, axis=0)[:, 0]
    lengths = np.hypot(*sides.T) / np.array([width, height, width, height])
    return bool((turns > 0).all() and lengths.max() < 3 * lengths.min())
