"""Where one picture lies in another: the transform that most of their correspondences agree on.

Points are in pixels of the small pictures (long side `features.SIDE`). A transform maps the registered picture to the query. How unlikely
it is that as many points agree by chance is computed a contrario (Moisan and Stival 2004), as a number of false alarms (NFA), and
calibrated by what was counted on pictures that show nothing registered.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import lgamma, log, log10, pi
from typing import Final, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from matcher.copies.correspondences import Pairs
from matcher.copies.features import SIDE
from matcher.pixels import F64

Model = Literal["scale", "affine", "perspective"]
MODELS: Final[tuple[Model, ...]] = get_args(Model)
_FREE: Final = {"scale": 2, "affine": 3, "perspective": 4}
_STEPS: Final[dict[Model, tuple[tuple[Model, float], ...]]] = {
    "scale": (("scale", 3.0), ("scale", 2.0), ("scale", 1.4), ("scale", 1.0), ("scale", 1.0)),
    "affine": (("affine", 3.0), ("affine", 2.0), ("affine", 1.4), ("affine", 1.0), ("affine", 1.0)),
    "perspective": (
        ("affine", 3.0),
        ("affine", 3.0),
        ("perspective", 2.0),
        ("perspective", 1.4),
        ("perspective", 1.0),
        ("perspective", 1.0),
    ),
}
_SLANTED: Final[tuple[tuple[Model, float], ...]] = tuple(("perspective", tolerance) for tolerance in (3.0, 2.0, 1.0, 0.6, 0.6))
_NEAR: Final = 6.0
"""Tolerances within which pairs that an affine transform misses may be of the same plane at a slant."""
_CLEARLY: Final = 12.0
"""Sum of F's two terms above which a homography explains the pairs better: by chance at most once in 400 times, were misses Gaussian."""
_BESIDE: Final = 1.5
"""Tolerances within which pairs are looked at for a hint of a slant."""
_HINT: Final = 6.0
"""The same sum in the cheap check before: at most once in 20 times."""

_CALIBRATED: Final[dict[Model, tuple[float, float]]] = {"scale": (2.8, 0.63), "affine": (5.05, 0.63), "perspective": (7.1, 0.6)}
"""How the chance that a picture which shows nothing registered agrees falls with the NFA: -log10 of it is first + second * -log10(NFA).

The NFA counts more alternatives than are tried, and takes features as independent. Fitted between 0.1 and 0.001 false agreements a query on
5,000 attacked pictures, each compared with 80 registered ones and their mirrors; `bench.copies.calibration` counts how it holds.
"""

TOLERANCE: Final = 0.01 * SIDE
_STARTS: Final = 64
_REFINED: Final = 3
_SLACK: Final = 0.25
_MAX_TILT: Final = np.deg2rad(20.0)
_MAX_TURN: Final = np.deg2rad(40.0)
_MAX_STRETCH: Final = log(2.0)
_LN10: Final = log(10.0)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """`transform`: 3 x 3, registered -> query, in small pixels, of the model, or near an affine one the homography that fits better;
    `inliers` of `pairs` correspondences agree with the model; `score`: -log10 of the expected number of chance agreements as good."""

    transform: F64
    inliers: int
    score: float
    pairs: int


def agree(
    pairs: Pairs,
    registered: tuple[int, int],
    query: tuple[int, int],
    model: Model = "scale",
    tests: int = 1,
    least: float = 0.0,
) -> Geometry | None:
    """The transform of `model` that the most correspondences support; None where its score is not above `least`.

    `registered` and `query` are the (width, height) of the small pictures; `tests` is how many pictures and mirrors are tried in all:
    it multiplies the expected number of chance agreements.
    """
    if model == "scale":
        pairs = pairs.keep(np.abs(pairs.turn) < _MAX_TILT)
    count, free, (base, slope) = len(pairs), _FREE[model], _CALIBRATED[model]
    alpha = min(0.5, pi * TOLERANCE**2 / (query[0] * query[1]))

    def score(inliers: int) -> float:
        return base - slope * log_nfa(count, inliers, free, alpha) - log10(max(1, tests))

    found = [
        _refine(pairs, support, _STEPS[model]) for support in _supports(pairs, model) if score(int(support.sum())) > least
    ]  # what all its supporters could not lift above `least` is not refined
    transform, inliers = max(found, key=lambda f: f[1], default=(np.eye(3), 0))
    if score(inliers) <= least or not _sane(transform, registered):
        return None
    placed = _slanted(pairs, transform, registered) if model == "affine" else transform
    return Geometry(placed, inliers, score(inliers), count)


def log_nfa(count: int, inliers: int, free: int, alpha: float) -> float:
    """log10 of the expected number of sets of `inliers` among `count` random pairs that agree with a transform fixed by `free` of them."""
    if inliers <= free:
        return float("inf")

    def choose(n: int, k: int) -> float:
        return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / _LN10

    return log(count - free) / _LN10 + choose(count, inliers) + choose(inliers, free) + (inliers - free) * log(alpha) / _LN10


def _supports(pairs: Pairs, model: Model) -> Iterator[Mask]:
    """Which pairs agree with a hypothesis, for the few best hypotheses that differ.

    One pair fixes a similarity by its place, size and angle (for `scale` one without rotation), roughly: what is farther away may
    miss by more. The clearest pairs are tried.
    """
    if len(pairs) <= _FREE[model]:
        return
    a, b = _complex(pairs.registered), _complex(pairs.query)
    start = slice(0, _STARTS)
    turn = np.exp(1j * pairs.turn[start]) if model != "scale" else np.ones(len(pairs.turn[start]), complex)
    step = (pairs.scale[start] * turn)[:, None] * (a[None, :] - a[start, None])
    miss = np.abs(step - (b[None, :] - b[start, None]))
    size = np.log(pairs.scale)
    support = miss < 2 * TOLERANCE + _SLACK * np.abs(step)
    support &= np.abs(size[None, :] - size[start, None]) < _MAX_STRETCH
    support &= np.cos(pairs.turn[None, :] - pairs.turn[start, None]) > np.cos(_MAX_TURN)
    counts = support.sum(axis=1)
    for _ in range(_REFINED):
        best = int(counts.argmax())
        if counts[best] <= _FREE[model]:
            return
        yield support[best]
        counts[support[best][start]] = 0


def _complex(points: F64) -> npt.NDArray[np.complex128]:
    return np.asarray(points[:, 0] + 1j * points[:, 1])


def _refine(pairs: Pairs, support: Mask, steps: tuple[tuple[Model, float], ...]) -> tuple[F64, int]:
    """Least squares over the pairs that agree, with a tolerance that shrinks; the transform and how many different points agree."""
    inside, transform = support, None
    for step, tolerance in steps:
        better = fit(pairs.registered[inside], pairs.query[inside], step)
        if better is None:
            break
        transform = better
        inside = residuals(transform, pairs.registered, pairs.query) < tolerance * TOLERANCE
    return (np.eye(3), 0) if transform is None else (transform, distinct(pairs, inside))


def _slanted(pairs: Pairs, transform: F64, registered: tuple[int, int]) -> F64:
    """The homography near an affine transform where it explains the pairs clearly better (an F test of the two more that it has free): a
    flat copy that was photographed at a slant."""
    miss = residuals(transform, pairs.registered, pairs.query)
    inside, near = miss < _BESIDE * TOLERANCE, miss < _NEAR * TOLERANCE
    if not _bent(transform, pairs.registered[inside], pairs.query[inside]):
        return transform
    slanted, inliers = _refine(pairs, near, _SLANTED)
    if inliers <= _FREE["perspective"] or not _sane(slanted, registered):
        return transform
    missed, left = (residuals(t, pairs.registered, pairs.query) for t in (transform, slanted))
    inside = np.minimum(missed, left) < TOLERANCE
    before, after = (float(np.square(miss[inside].clip(max=_NEAR * TOLERANCE)).sum()) for miss in (missed, left))
    return slanted if (before - after) * (inliers - _FREE["perspective"]) > _CLEARLY * after else transform


def _bent(transform: F64, source: F64, target: F64) -> bool:
    """Whether what an affine transform misses looks like a slant, by the first two terms of its series: much cheaper than a homography."""
    moved = source @ transform[:2, :2].T + transform[:2, 2]
    miss = (target - moved).ravel()
    x, y = ((moved - moved.mean(axis=0)) / SIDE).T
    one, none = np.ones_like(x), np.zeros_like(x)
    right, down = [x, y, one, none, none, none, x * x, x * y], [none, none, none, x, y, one, x * y, y * y]
    terms = np.stack([right, down], axis=-1).reshape(8, -1)
    left = [miss - terms[:free].T @ np.linalg.lstsq(terms[:free].T, miss, rcond=None)[0] for free in (6, 8)]
    affine, slanted = (float(rest @ rest) for rest in left)
    return (affine - slanted) * (len(source) - _FREE["perspective"]) > _HINT * slanted


def distinct(pairs: Pairs, inside: Mask) -> int:
    """Points in one spot (several orientations or sizes of one corner) are not independent: they count once."""
    return min(_spots(pairs.registered[inside]), _spots(pairs.query[inside]))


def _spots(points: F64) -> int:
    x, y = np.round(points / TOLERANCE).astype(int).T
    return len(set((x * 65_536 + y).tolist()))


def residuals(transform: F64, source: F64, target: F64) -> F64:
    """Distance of each transformed point (n x 2) to its partner; infinite where it falls behind the picture plane."""
    moved = source @ transform[:, :2].T + transform[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        where = moved[:, :2] / moved[:, 2:]
    return np.where(moved[:, 2] > 1e-6, np.hypot(*(where - target).T), np.inf)


def fit(source: F64, target: F64, model: Model) -> F64 | None:
    """The transform of `model` that maps `source` to `target` (n x 2 each) with least squares; None where they do not fix one."""
    if len(source) <= _FREE[model]:
        return None
    if model == "perspective":
        found, _ = cv2.findHomography(source, target, 0)
        return None if found is None or not np.isfinite(found).all() else np.asarray(found, float)
    return _fit_axes(source, target) if model == "scale" else _fit_affine(source, target)


def _fit_affine(source: F64, target: F64) -> F64 | None:
    middle, aim = source.mean(axis=0), target.mean(axis=0)
    a, b = source - middle, target - aim
    power = a.T @ a
    if np.linalg.det(power) <= 1e-9 * np.trace(power) ** 2:
        return None
    linear = np.linalg.solve(power, a.T @ b).T
    return _matrix(linear, aim - linear @ middle)


def _fit_axes(source: F64, target: F64) -> F64 | None:
    """Scale and shift along each axis; one common scale where an axis has too little extent to tell."""
    middle, aim = source.mean(axis=0), target.mean(axis=0)
    a, b = source - middle, target - aim
    power, joint = (a * a).sum(axis=0), (a * b).sum(axis=0)
    if power.sum() < 1e-9:
        return None
    common = joint.sum() / power.sum()
    factors = np.where(power > 0.05 * power.sum(), joint / np.maximum(power, 1e-9), common)
    return _matrix(np.diag(factors), aim - factors * middle)


def _matrix(linear: F64, shift: F64) -> F64:
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, shift
    return matrix


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
