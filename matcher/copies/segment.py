"""An immutable inverted file of local features: pictures 0..n-1 by the codes of their features, and a vote over them.

16 bytes per feature: a code, and which picture has it where, how large and how far turned. Sorted by code, so that any number of
leading bits is a cell (an offsets table says where each begins), and two files are merged in one pass. A query feature looks into its own
cell and those of its least certain bits (multi-probe, Lv et al. 2007), a bounded number of entries in all; entries within a Hamming
distance of the feature or of its mirror are hits. A picture's hits count together where one similarity transform explains them (weak
geometric consistency, Jégou et al. 2008), each by how unlikely it is by chance. NumPy does what the native library does, with equal
results.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from matcher.copies import votes
from matcher.copies.codes import BITS, LOGS, U32, U64, UNIT, Codes, Projections, distances, encode, log
from matcher.copies.features import INDEXED, SIDE, Fingerprint
from matcher.copies.native import address, library
from matcher.copies.votes import HIT, PLACE, Votes
from matcher.pixels import F32, U8

EVERY: Final = 0xFFFFFFFF
"""Not a group, but all of them."""
DEAD: Final = 0xFFFFFFFF
"""The group, or new number, of a picture that is left out."""
PROBES: Final = 16
BUDGET: Final = 600
"""Entries that are compared per feature of the query."""
_FILL: Final = 4
"""A cell holds 2^4 entries in the mean, or up to twice as many."""
_MAX_BITS: Final = 26
_RANKS: Final = 8
_HITS: Final = 12.0
"""The distance up to which entries are hits is such that a feature has so many by chance in a thousand pictures."""
_MORE: Final = 0.25
"""And this power of their number more among more pictures: so many pictures share them that hardly one gets two."""
_MAX_DISTANCE: Final = 18


def places(points: F32, picture: int = 0) -> npt.NDArray[np.void]:
    """n x 4 points of a small picture as n records of `PLACE`."""
    found = np.zeros(len(points), PLACE)
    found["picture"] = picture
    for name, values in zip(("x", "y"), points[:, :2].T, strict=True):
        found[name] = np.clip(values * (256 / SIDE), 0, 255).astype(np.uint8)
    found["angle"] = np.floor(points[:, 3] * (256 / 360)).astype(np.int64) & 255
    found["size"] = np.clip(np.round(16 * np.log2(np.maximum(points[:, 2], 0.1))) + 64, 0, 255).astype(np.uint8)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """What is looked up: n features, their codes and places."""

    codes: Codes
    places: npt.NDArray[np.void]

    @classmethod
    def of(cls, print_: Fingerprint) -> Query:
        return cls(encode(print_.descriptors), places(print_.points))


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """`codes`: n uint64, ascending; `places`: n records of `PLACE`; `offsets`: 2^bits + 1 uint32; `pictures`: how many there are."""

    pictures: int
    codes: U64
    places: npt.NDArray[np.void]
    bits: int
    offsets: U32

    @classmethod
    def build(cls, prints: Sequence[Fingerprint]) -> Segment:
        """Pictures 0..n-1, the first `INDEXED` features of each."""
        codes = [encode(p.descriptors[:INDEXED]).codes for p in prints]
        where = [places(p.points[:INDEXED], number) for number, p in enumerate(prints)]
        return cls.of(len(prints), np.concatenate([np.zeros(0, np.uint64), *codes]), np.concatenate([np.zeros(0, PLACE), *where]))

    @classmethod
    def of(cls, pictures: int, codes: U64, where: npt.NDArray[np.void]) -> Segment:
        """Of entries in any order."""
        order = np.argsort(codes, kind="stable")
        return cls.sorted(pictures, codes[order], where[order])

    @classmethod
    def sorted(cls, pictures: int, codes: U64, where: npt.NDArray[np.void]) -> Segment:
        bits = fineness(len(codes))
        return cls(pictures, codes, where, bits, _offsets(codes, bits))

    def __len__(self) -> int:
        """Entries."""
        return len(self.codes)

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.places.nbytes + self.offsets.nbytes

    def vote(self, query: Query, *, groups: U32 | None = None, group: int = EVERY, among: int = 0, least: float = 0.0) -> Votes:
        """Pictures that the query may show, with votes of at least `least`: minus ln of how many would by chance have as many among
        `among` pictures (those of the segment where it is smaller). `groups`: each picture's, `DEAD` for those left out; only those of
        `group` are looked at."""
        if not len(self.codes) or not len(query.places):
            return votes.NONE
        groups = np.zeros(self.pictures, np.uint32) if groups is None else groups
        hits = self.hits(query, groups, group, among)
        return votes.tally(hits, query.places, max(among, 1 if group != EVERY else self.pictures), least)

    def hits(self, query: Query, groups: U32, group: int = EVERY, among: int = 0) -> npt.NDArray[np.void]:
        """Near entries of each feature in turn: records of `HIT`."""
        native, weighing = library(), _Weighing.of(self, len(query.places), group, among)
        if native is None:
            found = [self._near(query, row, groups, group, weighing) for row in range(len(query.places))]
            return np.concatenate(found) if found else np.zeros(0, HIT)
        return self._native(native, query, groups, group, weighing)

    def _native(self, native: ctypes.CDLL, query: Query, groups: U32, group: int, weighing: _Weighing) -> npt.NDArray[np.void]:
        found = np.empty(len(query.places) * min(BUDGET, len(self)), HIT)
        looked = _Looked(address(self.codes), address(self.places), address(self.offsets), address(groups), self.bits, group)
        scan = native.filigrane_scan
        scan.restype = ctypes.c_int64
        count = scan(
            *(ctypes.byref(looked), ctypes.byref(weighing.native()), address(query.codes.codes), address(query.codes.margins)),
            *(ctypes.c_int64(len(query.places)), address(TEMPLATES), ctypes.c_int32(len(TEMPLATES))),
            *(ctypes.c_int32(min(BUDGET, len(self))), address(found)),
        )
        if count < 0:
            raise MemoryError
        return found[:count]

    def _near(self, query: Query, row: int, groups: U32, group: int, weighing: _Weighing) -> npt.NDArray[np.void]:
        code = query.codes.codes[row]
        entries = self._compared(code, query.codes.margins[row])
        distance, flipped = distances(self.codes[entries], code)
        near = distance <= weighing.limit
        entries, distance, flipped, compared = entries[near], distance[near], flipped[near], len(entries)
        alive = groups[self.places["picture"][entries]]
        kept = (alive != DEAD) & ((alive == group) | (group == EVERY))
        found = np.zeros(int(kept.sum()), HIT)
        found["place"], found["feature"] = self.places[entries[kept]], row
        found["distance"], found["flipped"] = distance[kept], flipped[kept]
        found["weight"] = weighing.weights(found["distance"], compared)[found["distance"]]
        return found[found["weight"] + votes.GAIN > 0]

    def _compared(self, code: np.uint64, margins: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Entries that a feature is compared with, cell after cell."""
        found, left = [], min(BUDGET, len(self))
        for probe in _probes(code, margins, self.bits):
            cell = int(probe) >> (2 * BITS - self.bits)
            start, end = _narrowed(self.codes, int(self.offsets[cell]), int(self.offsets[cell + 1]), probe, left)
            found.append(np.arange(start, end))
            left -= end - start
        return np.concatenate(found)


def fineness(entries: int) -> int:
    """Bits of a cell in a file of so many entries."""
    return min(_MAX_BITS, max(0, entries.bit_length() - 1 - _FILL)) if entries > BUDGET else 0


def merge(first: Segment, second: Segment, numbers: tuple[U32, U32]) -> Segment:
    """One of two; `numbers`: the new number of each one's pictures, ascending from 0, or `DEAD`: left out."""
    native, count = library(), sum(int((n != DEAD).sum()) for n in numbers)
    if native is None:
        return Segment.sorted(count, *_merged(first, second, numbers))
    codes, where = np.empty(len(first) + len(second), np.uint64), np.empty(len(first) + len(second), PLACE)
    native.filigrane_merge.restype = ctypes.c_int64
    ends = []
    for part, new in zip((first, second), numbers, strict=True):
        ends += [address(part.codes), address(part.places), ctypes.c_int64(len(part)), address(new)]
    kept = native.filigrane_merge(*ends, address(codes), address(where))
    if kept < len(codes):
        codes, where = codes[:kept].copy(), where[:kept].copy()
    return Segment.sorted(count, codes, where)


def _merged(first: Segment, second: Segment, numbers: tuple[U32, U32]) -> tuple[U64, npt.NDArray[np.void]]:
    codes, where = np.concatenate([first.codes, second.codes]), np.concatenate([first.places, second.places])
    where["picture"] = np.concatenate([new[part.places["picture"]] for part, new in zip((first, second), numbers, strict=True)])
    order = np.argsort(codes, kind="stable")
    order = order[where["picture"][order] != DEAD]
    return codes[order], where[order]


def _offsets(codes: U64, bits: int) -> U32:
    offsets = np.zeros((1 << bits) + 1, np.uint32)
    native = library()
    if native is not None:
        native.filigrane_offsets(address(codes), ctypes.c_int64(len(codes)), ctypes.c_int32(bits), address(offsets))
    elif bits:
        offsets[1:] = np.bincount((codes >> np.uint64(2 * BITS - bits)).astype(np.int64), minlength=1 << bits).cumsum()
    else:
        offsets[1] = len(codes)
    return offsets


def _templates(count: int) -> U8:
    """Which of the least certain bits are turned (bit r of a template: the r-th), the likeliest first, if margins grow evenly."""
    sets = np.arange(1 << _RANKS)
    turned = (sets[:, None] >> np.arange(_RANKS)) & 1
    return np.asarray(np.argsort(turned @ (np.arange(_RANKS) + 1.0) ** 2, kind="stable")[:count], np.uint8)


TEMPLATES: Final = _templates(PROBES)


def _probes(code: np.uint64, margins: npt.NDArray[np.int32], bits: int) -> list[np.uint64]:
    weakest = np.argsort(margins[:bits], kind="stable")[:_RANKS]
    flips = [1 << (63 - int(bit)) for bit in weakest]
    wanted = [int(t) for t in TEMPLATES if not int(t) >> len(flips)]
    return [np.uint64(int(code) ^ sum(flip for rank, flip in enumerate(flips) if t >> rank & 1)) for t in wanted]


def _narrowed(codes: U64, start: int, end: int, code: np.uint64, left: int) -> tuple[int, int]:
    """At most `left` entries of a cell: those around the code's own place agree with it in more bits than others."""
    if end - start <= left:
        return start, end
    middle = start + int(np.searchsorted(codes[start:end], code))
    first = start if middle - start < left // 2 else middle - left // 2
    first = min(first, end - left)
    return first, first + left


class _Looked(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("codes", "places", "offsets", "groups")),
        ("bits", ctypes.c_int32),
        ("wanted", ctypes.c_uint32),
    )


class _WeighingStruct(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("logs", "chance")),
        *((name, ctypes.c_int32) for name in ("ln_rate", "ln_among", "gain", "limit")),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Weighing:
    """What a hit weighs: minus ln of how many hits as near a picture has by chance, in 1/256."""

    chance: npt.NDArray[np.int32]
    ln_rate: int
    ln_among: int
    limit: int

    @classmethod
    def of(cls, segment: Segment, features: int, group: int, among: int) -> _Weighing:
        chance = np.ascontiguousarray(Projections.shipped().chance[segment.bits])
        pictures = segment.pictures if group == EVERY else min(segment.pictures, max(among, 1))
        expected = chance + log(min(len(segment), BUDGET))
        hits = _HITS * max(1.0, segment.pictures / 1000) ** _MORE
        limit = int(np.searchsorted(expected, UNIT * np.log(hits), side="right")) - 1
        return cls(chance, log(segment.pictures) - log(features), log(pictures) - log(features), min(max(limit, 0), _MAX_DISTANCE))

    def native(self) -> _WeighingStruct:
        return _WeighingStruct(address(LOGS), address(self.chance), self.ln_rate, self.ln_among, votes.GAIN, self.limit)

    def weights(self, near: U8, compared: int) -> npt.NDArray[np.int64]:
        """By distance, for a feature with hits at these distances. Many pictures with the same feature leave each of them less."""
        before = np.bincount(near, minlength=self.limit + 1).cumsum()[: self.limit + 1]
        expected = self.ln_rate - log(compared) - self.chance[: self.limit + 1].astype(np.int64)
        seen = np.array([self.ln_among - log(int(n) - 1) if n > 1 else e for n, e in zip(before, expected, strict=True)])
        least = np.where(expected > 0, expected // votes.SHARE, expected)
        return np.asarray(np.maximum(np.minimum(seen, expected), least))
