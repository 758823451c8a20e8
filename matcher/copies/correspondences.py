"""Which features of two pictures show the same spot: each other's nearest descriptors, for the query as it is and for its mirror.

The mirror of a descriptor is a permutation that swaps its dimensions in 64 pairs (a, b). With sums a + b and differences a - b the dot
product of two descriptors is half of (sums · sums + differences · differences), and that with the mirror half of (sums · sums -
differences · differences): one pass over the descriptors answers both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from matcher.copies.features import MIRROR, SIDE, Fingerprint
from matcher.pixels import F32, F64, U8

_RATIO: Final = 0.92
_APART: Final = 0.02 * SIDE
_FIRST: Final = np.flatnonzero(np.arange(128) < np.asarray(MIRROR))
_SECOND: Final = np.asarray(MIRROR)[_FIRST]


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
    """`sums`, `differences`: n x 64 float32 whole numbers, exact; `lengths`: squared lengths of the descriptors."""

    sums: F32
    differences: F32
    lengths: F32


def correspond(registered: Fingerprint, query: Fingerprint) -> tuple[Pairs, Pairs]:
    """The pairs with the query, and those with its mirror (points of the mirrored query).

    A pair is made of features that are each other's nearest, and clearly nearer than the second nearest that lies elsewhere
    (Lowe's ratio): one spot may have several features, at other sizes or angles.
    """
    if min(len(registered.points), len(query.points)) < 2:
        return _pairs(registered.points[:0], query.points[:0]), _pairs(registered.points[:0], query.points[:0])
    upright, flipped = _distances(registered, query)
    return _mutual(registered.points, query.points, upright), _mutual(registered.points, _flipped(query), flipped)


def _distances(registered: Fingerprint, query: Fingerprint) -> tuple[F32, F32]:
    """Squared distances, query x registered, of the query and of its mirror."""
    a, b = _halves(query), _split(registered.descriptors)
    same, other = a.sums @ b.sums.T, a.differences @ b.differences.T
    same -= a.lengths[:, None]
    same -= b.lengths
    return -(same + other), other - same


@lru_cache(4)
def _halves(print_: Fingerprint) -> _Halves:
    return _split(print_.descriptors)


def _split(descriptors: U8) -> _Halves:
    first, second = descriptors[:, _FIRST].astype(np.float32), descriptors[:, _SECOND].astype(np.float32)
    lengths = np.einsum("ij,ij->i", first, first) + np.einsum("ij,ij->i", second, second)
    return _Halves(first + second, first - second, lengths)


def _flipped(query: Fingerprint) -> F32:
    """The points of the query's mirror."""
    points = query.points.copy()
    points[:, 0] = query.small[0] - 1 - points[:, 0]
    points[:, 3] = (180.0 - points[:, 3]) % 360.0
    return points


def _mutual(registered: F32, query: F32, distances: F32) -> Pairs:
    nearest = distances.argmin(axis=1)
    rows = np.flatnonzero(distances.argmin(axis=0)[nearest] == np.arange(len(nearest)))
    columns = nearest[rows]
    best = distances[rows, columns]
    x, y = registered[:, 0], registered[:, 1]
    near = (x[columns, None] - x) ** 2 + (y[columns, None] - y) ** 2 < _APART**2
    second = np.where(near, np.float32(np.inf), distances[rows]).min(axis=1)
    ratio = best / np.maximum(second, 1.0)
    order = np.argsort(ratio, kind="stable")
    order = order[ratio[order] < _RATIO**2]
    return _pairs(registered[columns[order]], query[rows[order]])


def _pairs(registered: F32, query: F32) -> Pairs:
    turn = np.deg2rad((query[:, 3] - registered[:, 3] + 180.0) % 360.0 - 180.0)
    scale = query[:, 2] / np.maximum(registered[:, 2], 1e-3)
    return Pairs(registered[:, :2].astype(float), query[:, :2].astype(float), scale.astype(float), turn.astype(float))
