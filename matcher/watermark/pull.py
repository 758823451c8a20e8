"""Two pictures lie over each other: what their blocks say of where they belong (Lucas and Kanade 1981), and the transform they agree on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from matcher.pixels import F32, F64

BLOCK: Final = 8
_SOFT: Final = 0.8
_AROUND: Final = (33, 33)
_NOISE: Final = 1.0
"""Gray levels: what deviates less is no detail."""
_STRONG: Final = 8.0
"""Gray levels of deviation above which a block says no more than others."""
_AGREES: Final = 0.6
_PERFECT: Final = 1.005
_CHANCE: Final = 0.5
"""A block's evidence is -log of what it lacks of a perfect correlation, less what a block may have by chance."""
_REWEIGHTED: Final = 4
_TOLERANCE: Final = 0.3
"""Pixels that a block may miss by and still count, at least."""
_FREE: Final = 8
_SIMILARITY: Final = np.array([[1, 0, 0, 0, 1, 0, 0, 0], [0, -1, 0, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1, 0, 0.0]])
_UNSURE: Final = 0.1
"""Pixels that any block may be wrong by, beside what is seen of that."""
_CLEARLY: Final = 6.0
"""F above which a model is too simple."""
_SPOTS: Final = 4.0
"""Blocks that say much the same: neighbours are read together."""


class Votes(NamedTuple):
    """Of n blocks: `middles`, n x 2 in pixels; `shifts`, n x 2, known -> seen; `tensors`, n x 2 x 2, how much that counts in which
    direction."""

    middles: F64
    shifts: F64
    tensors: F64

    def weighted(self, weights: F64) -> Votes:
        return Votes(self.middles, self.shifts, self.tensors * weights[:, None, None])


class Agreement(NamedTuple):
    """How well two pictures agree. `blocks`: how many blocks with detail do, of those that are `seen`; `evidence`: the more, the more
    blocks agree, the better they do and the fewer do not; `median`: of the correlations."""

    blocks: int
    seen: int
    evidence: float
    median: float

    @property
    def share(self) -> float:
        """Of the blocks with detail that are seen."""
        return self.blocks / max(self.seen, 1)

    @property
    def likely(self) -> float:
        """To tell places apart by: much evidence of more blocks is less than as much of few."""
        return self.evidence / sqrt(max(self.seen, 1))


NOTHING: Final = Agreement(0, 0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """The registered picture where the query shows it: H x W `quick` and its slopes `gx`, `gy`, `mask`, and how much of it is seen `around`
    each pixel; of each block (rows x columns) its power, the structure tensor, what the slopes have in common with the picture, and
    whether it is seen as a whole."""

    quick: F32
    gx: F32
    gy: F32
    mask: F32
    around: F32
    power: F32
    xx: F32
    xy: F32
    yy: F32
    xk: F32
    yk: F32
    whole: F32

    @classmethod
    def of(cls, known: F32, mask: F32) -> Known:
        """`known`: H x W; `mask`: 1 where the query shows it."""
        around = np.maximum(cv2.boxFilter(mask, -1, _AROUND), np.float32(1e-3))
        quick = _quick(known, mask, around)
        gx, gy = (np.asarray(cv2.Sobel(quick, cv2.CV_32F, *axis, ksize=3, scale=1 / 8), np.float32) for axis in ((1, 0), (0, 1)))
        pairs = ((quick, quick), (gx, gx), (gx, gy), (gy, gy), (gx, quick), (gy, quick))
        power, xx, xy, yy, xk, yk = (_means(one * other) for one, other in pairs)
        return cls(quick, gx, gy, mask, around, power, xx, xy, yy, xk, yk, (_means(mask) > 0.98).astype(np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Pull:
    """Rows x columns each: the structure tensor `xx`, `xy`, `yy` and that times the shift `xe`, `ye`, weighted by how well the block agrees
    already; `ncc`, correlation, 0 where a block is not seen; `textured`: 1 where a block that is seen has detail."""

    xx: F32
    xy: F32
    yy: F32
    xe: F32
    ye: F32
    ncc: F32
    textured: F32

    @classmethod
    def of(cls, known: Known, seen: F32) -> Pull:
        """`seen`: the query laid over the registered picture (H x W). Each block has its own contrast, a few together their brightness."""
        seen = _quick(seen, known.mask, known.around)
        power, common, floor = _means(seen * seen), _means(known.quick * seen), np.float32(_NOISE**2)
        clear, seen_clear = np.maximum(known.power, floor), np.maximum(power, floor)
        ncc = np.asarray(common / np.sqrt(clear * seen_clear) * known.whole, np.float32)
        back = np.sqrt(clear / seen_clear)
        weight = ncc.clip(0, 1) ** 2 / np.maximum(known.power, np.float32(_STRONG**2))
        missed = known.xk - _means(known.gx * seen) * back, known.yk - _means(known.gy * seen) * back
        xx, xy, yy, xe, ye = (np.asarray(each * weight, np.float32) for each in (known.xx, known.xy, known.yy, *missed))
        return cls(xx, xy, yy, xe, ye, ncc, np.asarray((known.power > floor) * known.whole, np.float32))

    @property
    def agreement(self) -> Agreement:
        ncc = self.ncc[self.textured > 0]
        if not len(ncc):
            return NOTHING
        evidence = -np.log(_PERFECT - ncc.clip(0, 1)) - _CHANCE
        return Agreement(int((ncc > _AGREES).sum()), len(ncc), float(evidence.sum()), float(np.median(ncc)))

    def votes(self) -> Votes:
        """Of the blocks that agree; each is read together with its neighbours, and says nothing of directions without detail."""
        xx, xy, yy, xe, ye = (np.asarray(cv2.blur(each, (3, 3)), np.float64) for each in (self.xx, self.xy, self.yy, self.xe, self.ye))
        extra = 0.02 * (xx + yy) + 1e-5
        xx, yy = xx + extra, yy + extra
        shifts: F64 = np.stack([yy * xe - xy * ye, xx * ye - xy * xe], -1) / (xx * yy - xy * xy)[..., None]
        middles = (np.indices(self.xx.shape)[::-1] + 0.5) * BLOCK - 0.5
        tensors = np.stack([self.xx, self.xy, self.xy, self.yy], -1).astype(np.float64)
        counts = (self.xx + self.yy).ravel() > 1e-9
        placed = np.asarray(middles.transpose(1, 2, 0).reshape(-1, 2), np.float64)
        return Votes(placed[counts], shifts.reshape(-1, 2)[counts], tensors.reshape(-1, 2, 2)[counts])


def _quick(image: F32, mask: F32, around: F32) -> F32:
    """What changes within a few blocks, without the finest noise: brightness and slow light are taken off. `around`: how much is seen."""
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), _SOFT), np.float32)
    return np.asarray((image - cv2.boxFilter(image * mask, -1, _AROUND) / around) * mask, np.float32)


def _means(image: F32) -> F32:
    """Of each block of an H x W picture."""
    rows, columns = image.shape[0] // BLOCK, image.shape[1] // BLOCK
    part = image[: rows * BLOCK, : columns * BLOCK]
    return np.asarray(cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA), np.float32)


class _Columns(NamedTuple):
    """How each of k numbers of a transform moves n points to the `right` and `down`: k x n each."""

    right: F64
    down: F64

    def moved(self, numbers: F64) -> F64:
        """n x 2"""
        return np.stack([numbers @ self.right, numbers @ self.down], -1)


def step(votes: Votes, free: int, tolerance: float = _TOLERANCE) -> tuple[F64, Votes] | None:
    """3 x 3 in pixels: what the blocks agree on, a similarity (4 free), affine (6) or projective (8), and the votes weighted by how far
    they miss it (Tukey's biweight: what lies over one of the pictures says nothing). None where they fix none."""
    if len(votes.middles) < free // 2:
        return None
    middle = votes.middles.mean(axis=0)
    unit = max(1.0, float(np.abs(votes.middles - middle).max()))
    basis = _SIMILARITY if free == 4 else np.eye(_FREE)[:free]
    columns = _near_identity((votes.middles - middle) / unit, basis)
    weighted, numbers = votes, np.zeros(free)
    for _ in range(_REWEIGHTED):
        found = _solved(columns, weighted.tensors, votes.shifts)
        if found is None:
            return None
        numbers = found
        miss = np.hypot(numbers @ columns.right - votes.shifts[:, 0], numbers @ columns.down - votes.shifts[:, 1])
        weighted = votes.weighted((1 - np.minimum(miss / max(tolerance, 3 * float(np.median(miss))), 1) ** 2) ** 2)
    told = numbers @ basis
    made = np.eye(3)
    made[:2] += told[:6].reshape(2, 3) / unit
    made[2, :2] -= told[6:] / unit
    to_unit = np.array([[1 / unit, 0, -middle[0] / unit], [0, 1 / unit, -middle[1] / unit], [0, 0, 1]])
    return np.asarray(np.linalg.inv(to_unit) @ made @ to_unit), weighted


def _near_identity(points: F64, basis: F64) -> _Columns:
    """Of each row of `basis`, made of eight numbers: affine, then the first terms of a slant. `points`: n x 2."""
    x, y = points.T
    one, none = np.ones_like(x), np.zeros_like(x)
    right = np.stack([x, y, one, none, none, none, x * x, x * y])
    down = np.stack([none, none, none, x, y, one, x * y, y * y])
    return _Columns(basis @ right, basis @ down)


def _solved(columns: _Columns, tensors: F64, aims: F64) -> F64 | None:
    """Least squares: the k numbers that come nearest to `aims` (n x 2) by the blocks' tensors."""
    (right, down), (xx, xy, yy) = columns, (tensors[:, 0, 0], tensors[:, 0, 1], tensors[:, 1, 1])
    across, along = right * xx + down * xy, right * xy + down * yy
    matrix = across @ right.T + along @ down.T
    if not np.trace(matrix) > 1e-6:
        return None
    matrix[np.diag_indices(len(matrix))] += 1e-9 * np.trace(matrix) / len(matrix)
    return np.asarray(np.linalg.solve(matrix, across @ aims[:, 0] + along @ aims[:, 1]))


def simplest(votes: Votes, at: F64, original: F64) -> F64 | None:
    """The transform (registered original -> query) of the simplest model that explains the votes no worse than a homography by an F test:
    a crop is a shift, a smaller copy has one scale, few pictures are seen at a slant. Where little is seen, eight numbers fit noise.

    `at`: 3 x 3, frame -> query; `original`: frame -> registered original. None where the homography is needed.
    """
    full = step(votes, _FREE)
    if full is None:
        return None
    source, aims = _moved(original, votes.middles), _moved(at, votes.middles + votes.shifts)
    back = np.linalg.inv(_slope(at, votes.middles.mean(axis=0)))
    tensors = back.T @ full[1].tensors @ back

    def left(points: F64) -> float:
        miss = points - aims
        return float(np.einsum("ni,nij,nj->", miss, tensors, miss))

    unsure = _UNSURE**2 * float(np.trace(full[1].tensors, axis1=1, axis2=2).sum())
    least = left(_moved(at @ full[0], votes.middles))
    count = max(1.0, (2 * len(aims) - _FREE) / _SPOTS)
    middle = source.mean(axis=0)
    unit = max(1.0, float(np.abs(source - middle).max()))
    to_unit = _matrix(1 / unit, 0, -middle[0] / unit, 0, 1 / unit, -middle[1] / unit)
    for columns, model in _models((source - middle) / unit):
        # with one scale to the pixel nothing is left but a shift
        base = source if model is _shift else np.zeros_like(source)
        numbers = _solved(columns, tensors, aims - base)
        if numbers is None:
            continue
        points = base + columns.moved(numbers)
        if left(points) - least <= _CLEARLY * (_FREE - len(numbers)) * (least + unsure) / count:
            return model(numbers) if model is _shift else model(numbers) @ to_unit
    return None


Numbers = npt.NDArray[np.float64]


def _shift(n: Numbers) -> F64:
    return _matrix(1, 0, n[0], 0, 1, n[1])


def _scale(n: Numbers) -> F64:
    return _matrix(n[0], 0, n[1], 0, n[0], n[2])


def _stretch(n: Numbers) -> F64:
    return _matrix(n[0], 0, n[2], 0, n[1], n[3])


def _similarity(n: Numbers) -> F64:
    return _matrix(n[0], -n[1], n[2], n[1], n[0], n[3])


def _affine(n: Numbers) -> F64:
    return _matrix(n[0], n[1], n[4], n[2], n[3], n[5])


def _models(points: F64) -> Iterator[tuple[_Columns, Callable[[Numbers], F64]]]:
    """From the simplest on: how the numbers move n points, and the 3 x 3 transform that they are."""
    (x, y), (one, none) = points.T, (np.ones(len(points)), np.zeros(len(points)))

    def of(*columns: tuple[F64, F64]) -> _Columns:
        right, down = zip(*columns, strict=True)
        return _Columns(np.stack(right), np.stack(down))

    shift = ((one, none), (none, one))
    yield of(*shift), _shift
    yield of((x, y), *shift), _scale
    yield of((x, none), (none, y), *shift), _stretch
    yield of((x, y), (-y, x), *shift), _similarity
    yield of((x, none), (y, none), (none, x), (none, y), *shift), _affine


def _matrix(*numbers: float) -> F64:
    return np.array([*numbers, 0, 0, 1], float).reshape(3, 3)


def _moved(transform: F64, points: F64) -> F64:
    after = points @ transform[:, :2].T + transform[:, 2]
    return np.asarray(after[:, :2] / after[:, 2:])


def _slope(transform: F64, point: F64) -> F64:
    """2 x 2: how the transform stretches and turns around a point."""
    after = transform @ [*point, 1.0]
    return np.asarray((transform[:2, :2] - np.outer(after[:2] / after[2], transform[2, :2])) / after[2])
