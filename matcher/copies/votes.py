"""What hits say together: of each picture the most that one similarity transform explains.

Votes are minus ln of how many pictures would have as much by chance: the number of sets of as many features, times the chance that each is
as near and that the later ones agree with the first in angle, size and place.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from matcher.copies.codes import LOGS, U32, UNIT, log
from matcher.copies.native import address, library
from matcher.pixels import F64

PLACE: Final = np.dtype([("picture", "<u4"), ("x", "u1"), ("y", "u1"), ("angle", "u1"), ("size", "u1")])
"""Coordinates in 1/256 of the small picture's long side, angles in 1/256 turns, sizes as 16 log2, plus 64."""
HIT: Final = np.dtype([("place", PLACE), ("weight", "<i4"), ("feature", "<u2"), ("distance", "u1"), ("flipped", "u1")])
VOTE: Final = np.dtype([("picture", "<u4"), ("score", "<i4"), ("support", "<u2"), ("flipped", "u1"), ("unused", "u1")])
GAIN: Final = round(UNIT * 5.0)
"""How much less likely it is that a second hit agrees with the first by chance: 256 ln."""
SHARE: Final = 4
"""What a feature that many pictures have keeps of its weight at least: one part of so many."""
_MOST: Final = 96
_HYPOTHESES: Final = 16
_TURN: Final = 16
_ZOOM: Final = 10
_SAME: Final = 2
_SLACK: Final = (36.0, 0.09)
"""A place may be that far from where it is expected, squared: so much, and so much of the squared distance of the two points."""


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """`pictures`: n uint32; `votes`: n float; `support`: n uint16, features that agree; `flipped`: n bool, whether it is the mirror."""

    pictures: U32
    votes: F64
    support: npt.NDArray[np.uint16]
    flipped: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, found: npt.NDArray[np.void]) -> Votes:
        return cls(found["picture"], found["score"] / UNIT, found["support"], found["flipped"] > 0)


NONE: Final = Votes.of(np.zeros(0, VOTE))


class _Tally(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("logs", "cosine", "sine", "zoom")),
        *((name, ctypes.c_int32) for name in ("gain", "ln_pictures", "least")),
    )


_ANGLES: Final = np.arange(256) * (2 * np.pi / 256)
_COSINE: Final = np.cos(_ANGLES)
_SINE: Final = np.sin(_ANGLES)
_ZOOMS: Final = 2.0 ** ((np.arange(256) - 128) / 16)


def tally(hits: npt.NDArray[np.void], query: npt.NDArray[np.void], pictures: int, least: float) -> Votes:
    """Votes of at least `least` from hits (records of `HIT`) of features at `query` (records of `PLACE`), among so many pictures."""
    native, floor = library(), round(UNIT * least)
    if native is None:
        return Votes.of(_tally(hits, query, log(pictures), floor))
    by = _Tally(address(LOGS), address(_COSINE), address(_SINE), address(_ZOOMS), GAIN, log(pictures), floor)
    found = np.empty(len(hits) // 2 + 1, VOTE)
    native.filigrane_tally.restype = ctypes.c_int64
    count = native.filigrane_tally(ctypes.byref(by), address(hits), ctypes.c_int64(len(hits)), address(query), address(found))
    if count < 0:
        raise MemoryError
    return Votes.of(found[:count])


def _tally(hits: npt.NDArray[np.void], query: npt.NDArray[np.void], ln_pictures: int, least: int) -> npt.NDArray[np.void]:
    of = hits["place"]["picture"]
    named, first, counts = np.unique(of, return_index=True, return_counts=True)
    found = []
    for at in np.argsort(first):
        if counts[at] > 1:
            vote = _voted(hits[of == named[at]], query, ln_pictures, least)
            if vote is not None:
                found.append((named[at], *vote, 0))
    return np.array(found, VOTE)


def _voted(hits: npt.NDArray[np.void], query: npt.NDArray[np.void], ln_pictures: int, least: int) -> tuple[int, int, bool] | None:
    """(score, support, flipped) of one picture."""
    best = None
    for flipped in (False, True):
        mine = hits[(hits["flipped"] > 0) == flipped][:_MOST]
        if len(mine) < 2 or _hope(mine) - ln_pictures < least:
            continue
        score, support = _most(_Pairs.of(mine, query[mine["feature"]], flipped=flipped))
        if support > 1 and score - ln_pictures >= least and (best is None or score > best[0]):
            best = score, support, flipped
    return best and (best[0] - ln_pictures, *best[1:])


def _hope(hits: npt.NDArray[np.void]) -> int:
    """What all would be worth if they agreed."""
    return int(hits["weight"].sum()) + GAIN * len(hits) + sum(log(n + 1) for n in range(len(hits)))


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Corresponding places of a picture and a query (n x 2 each), how far turned and how much larger the query's are."""

    query: npt.NDArray[np.int64]
    registered: npt.NDArray[np.int64]
    turn: npt.NDArray[np.int64]
    zoom: npt.NDArray[np.int64]
    weight: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]

    @classmethod
    def of(cls, hits: npt.NDArray[np.void], query: npt.NDArray[np.void], *, flipped: bool) -> _Pairs:
        q, r = ({name: part[name].astype(np.int64) for name in ("x", "y", "angle", "size")} for part in (query, hits["place"]))
        x, angle = (-q["x"], 128 - q["angle"]) if flipped else (q["x"], q["angle"])
        at, of = np.stack([x, q["y"]], axis=1), np.stack([r["x"], r["y"]], axis=1)
        turn, zoom = (angle - r["angle"]) & 255, q["size"] - r["size"]
        return cls(at, of, turn, zoom, hits["weight"].astype(np.int64), hits["feature"].astype(np.int64))

    def agree(self, at: int) -> npt.NDArray[np.bool_]:
        """Which may come from one similarity transform with the pair `at`, and are not the same point twice."""
        turn = (self.turn[at] - self.turn) & 255
        (x, y), (rx, ry) = (self.query - self.query[at]).T, (self.registered - self.registered[at]).T
        same = np.max(np.abs([x, y, rx, ry]), axis=0) <= _SAME
        scale = _ZOOMS[np.clip(self.zoom[at] + 128, 0, 255)]
        c, s = _COSINE[self.turn[at]] * scale, _SINE[self.turn[at]] * scale
        ex, ey = c * rx - s * ry - x, s * rx + c * ry - y
        near = ex * ex + ey * ey <= _SLACK[0] + _SLACK[1] * (x * x + y * y).astype(float)
        turned = np.minimum(turn, 256 - turn) <= _TURN
        return np.asarray(turned & (np.abs(self.zoom - self.zoom[at]) <= _ZOOM) & ~same & near & (self.feature != self.feature[at]))


def _most(pairs: _Pairs) -> tuple[int, int]:
    """(score without the number of pictures, features that agree) of the best of the heaviest pairs' transforms."""
    best = (-(1 << 31), 0)
    for at in np.argsort(-pairs.weight, kind="stable")[:_HYPOTHESES]:
        worth = np.where(pairs.agree(int(at)), pairs.weight + GAIN, 0)
        each = np.zeros(int(pairs.feature.max()) + 1, np.int64)
        np.maximum.at(each, pairs.feature, worth)
        agreeing = int((each > 0).sum())
        score = int(each.sum()) + sum(log(n + 2) for n in range(agreeing)) + int(pairs.weight[at])
        best = max(best, (score, agreeing + 1), key=lambda found: found[0])
    return best
