"""Which features of two pictures show the same spot: each other's nearest descriptors, for the query as it is and for its mirror.

The mirror of a descriptor is a permutation that swaps its dimensions in 64 pairs (a, b). With sums a + b and differences a - b the dot
product of two descriptors is half of (sums · sums + differences · differences), and that with the mirror half of (sums · sums -
differences · differences): one pass over the descriptors answers both.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from matcher.copies.codes import I16, I32, PAIRS
from matcher.copies.features import LEVEL, SIDE, Fingerprint
from matcher.copies.native import address, library
from matcher.pixels import F32, F64, U8

_RATIO: Final = 0.92
_APART: Final = 0.02 * SIDE
_TILE: Final = 64
_FAR: Final = 32_767
_SWAPPED: Final = np.ascontiguousarray(PAIRS.T.astype(np.int32))


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Corresponding points, the clearest first: n x 2 each, and how much larger (ratio) and turned (radians) the query's feature is."""

    registered: F64
    query: F64
    scale: F64
    turn: F64

    def __len__(self) -> int:
        return len(self.scale)

    def keep(self, mask: npt.NDArray[np.bool_]) -> Pairs:
        """Those where `mask` is true."""
        return Pairs(self.registered[mask], self.query[mask], self.scale[mask], self.turn[mask])


@dataclass(frozen=True, slots=True, eq=False)
class _Halves:
    """`sums`, `differences`: 64 x n int16; `lengths`: n int16, squared lengths of the descriptors. n is rounded up to a multiple of `_TILE`
    with columns that are far from everything."""

    sums: I16
    differences: I16
    lengths: I16


def correspond(registered: Fingerprint, query: Fingerprint) -> tuple[Pairs, Pairs]:
    """The pairs with the query, and those with its mirror (points of the mirrored query).

    A pair is made of features that are each other's nearest, and clearly nearer than the second nearest that lies elsewhere
    (Lowe's ratio): one spot may have several features, at other sizes or angles.
    """
    if min(len(registered.points), len(query.points)) < 2:
        return _pairs(registered.points[:0], query.points[:0]), _pairs(registered.points[:0], query.points[:0])
    native = library()
    upright, flipped = _nearest_native(native, registered, query) if native is not None else _nearest(registered, query)
    return _clear(registered.points, query.points, upright), _clear(registered.points, _flipped(query), flipped)


def _clear(registered: F32, query: F32, found: I32) -> Pairs:
    """The pairs among `found` (of each query feature: the registered one or -1, squared distance, that of the second nearest)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(found[:, 0] >= 0, found[:, 1] / found[:, 2], np.inf)
    order = np.argsort(ratio, kind="stable")
    order = order[: np.count_nonzero(ratio < _RATIO**2)]
    return _pairs(registered[found[order, 0]], query[order])


def _nearest_native(native: ctypes.CDLL, registered: Fingerprint, query: Fingerprint) -> I32:
    halves, levels = _halves(query), np.ascontiguousarray(registered.descriptors // LEVEL)
    points = np.ascontiguousarray(registered.points)
    found = np.empty((2, len(query.points), 3), np.int32)
    failed = native.filigrane_nearest(
        *(address(levels), address(points), ctypes.c_int(len(levels)), address(_SWAPPED)),
        *(address(halves.sums), address(halves.differences), address(halves.lengths)),
        *(ctypes.c_int(len(query.points)), ctypes.c_int(len(halves.lengths)), ctypes.c_float(_APART), address(found)),
    )
    if failed:
        raise MemoryError("no memory for the distances of features")
    return found


def _nearest(registered: Fingerprint, query: Fingerprint) -> I32:
    """What `filigrane_nearest` does. Products of whole numbers are exact in float32, which NumPy multiplies fastest."""
    a, b, count = _halves(query), _split(registered.descriptors), len(query.points)
    same, other = (x.T.astype(np.float32) @ y.astype(np.float32) for x, y in ((a.sums, b.sums), (a.differences, b.differences)))
    both = a.lengths[:, None].astype(np.float32) + b.lengths - same
    return np.stack([_mutual(registered.points, (both + sign * other)[:count, : len(registered.points)]) for sign in (-1, 1)])


def _mutual(registered: F32, distances: F32) -> I32:
    rows = np.arange(len(distances))
    nearest = distances.argmin(axis=1)
    x, y = registered[:, 0], registered[:, 1]
    near = (x[nearest, None] - x) ** 2 + (y[nearest, None] - y) ** 2 < _APART**2
    second = np.where(near, np.float32(_FAR), distances).min(axis=1)
    mutual = distances.argmin(axis=0)[nearest] == rows
    return np.stack([np.where(mutual, nearest, -1), distances[rows, nearest], second], axis=1).astype(np.int32)


@lru_cache(4)
def _halves(print_: Fingerprint) -> _Halves:
    """A query meets many registered pictures."""
    return _split(print_.descriptors)


def _split(descriptors: U8) -> _Halves:
    room = -len(descriptors) % _TILE
    levels = np.pad((descriptors // LEVEL).astype(np.int16), ((0, room), (0, 0)))
    first, second = levels[:, _SWAPPED[0]], levels[:, _SWAPPED[1]]
    lengths = np.einsum("ij,ij->i", levels, levels)
    lengths[len(descriptors) :] = _FAR // 2
    return _Halves(np.ascontiguousarray((first + second).T), np.ascontiguousarray((first - second).T), lengths)


def _flipped(query: Fingerprint) -> F32:
    """The points of the query's mirror."""
    points = query.points.copy()
    points[:, 0] = query.small[0] - 1 - points[:, 0]
    points[:, 3] = (180.0 - points[:, 3]) % 360.0
    return points


def _pairs(registered: F32, query: F32) -> Pairs:
    turn = np.deg2rad((query[:, 3] - registered[:, 3] + 180.0) % 360.0 - 180.0)
    scale = query[:, 2] / np.maximum(registered[:, 2], 1e-3)
    return Pairs(registered[:, :2].astype(float), query[:, :2].astype(float), scale.astype(float), turn.astype(float))
