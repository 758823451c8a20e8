"""Descriptors as 64 bits each, such that a picture and its mirror are looked up at once.

Mirroring swaps the 128 dimensions pairwise: 64 sums of pairs stay what they are, 64 differences change their sign. So the upper 32 bits of
a code are signs of projections of the sums, the same for both; the lower 32, of the differences, are all turned. The projections are those
that tell different features apart best, measured by how much the same feature varies from copy to copy (linear discriminants, as in Strecha
et al. 2012, LDAHash), the best first: codes in order are the cells of an inverted file of whatever fineness.
"""

from __future__ import annotations

import ctypes
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from matcher.copies.features import MIRROR
from matcher.copies.native import address, library
from matcher.pixels import U8

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I16 = npt.NDArray[np.int16]
I32 = npt.NDArray[np.int32]

BITS: Final = 32
"""Of each half of a code."""
ANTISYMMETRIC: Final = np.uint64(0xFFFFFFFF)
"""A code XOR this is the mirrored feature's."""
DISTANCES: Final = 2 * BITS + 1
UNIT: Final = 256
"""Logarithms are integers, in 1/256 of a natural one: sums of them are the same on every machine."""
LOGS: Final = np.asarray(np.round(UNIT * np.log(np.maximum(np.arange(4096), 1))), np.int32)
"""256 ln(i) of small counts; of 0 that of 1."""
_SHIPPED: Final = Path(__file__).with_name("codes.npz")


@dataclass(frozen=True, slots=True, eq=False)
class Projections:
    """`symmetric`, `antisymmetric`: 32 x 64 int16; `centre`: 32 int32, the medians of the symmetric ones; `chance`: 33 x 65 int32, by the
    number of leading bits that agree: 256 ln of the chance that two features of different pictures are within that distance."""

    symmetric: I16
    antisymmetric: I16
    centre: I32
    chance: I32

    @property
    def identity(self) -> int:
        """Codes are comparable where this is the same, below 2^32."""
        return zlib.crc32(b"".join(part.astype("<i4").tobytes() for part in (self.symmetric, self.antisymmetric, self.centre)))

    @classmethod
    @lru_cache(1)
    def shipped(cls) -> Projections:
        """Those that `bench/copies/projections.py` learnt."""
        with np.load(_SHIPPED) as stored:
            return cls(*(np.ascontiguousarray(stored[name]) for name in ("symmetric", "antisymmetric", "centre", "chance")))


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """`codes`: n uint64; `margins`: n x 32 int32, how far each symmetric projection is from turning its bit."""

    codes: U64
    margins: I32


def _pairs() -> U8:
    """64 x 2: the positions that mirroring swaps."""
    first = np.flatnonzero(np.arange(len(MIRROR)) < np.array(MIRROR))
    return np.ascontiguousarray(np.stack([first, np.array(MIRROR)[first]], axis=1).astype(np.uint8))


PAIRS: Final = _pairs()


def halves(descriptors: U8) -> tuple[I32, I32]:
    """The symmetric and the antisymmetric part of n x 128 descriptors, n x 64 each."""
    first, second = descriptors[:, PAIRS[:, 0]].astype(np.int32), descriptors[:, PAIRS[:, 1]].astype(np.int32)
    return first + second, first - second


def encode(descriptors: U8, by: Projections | None = None) -> Codes:
    """Codes of n x 128 descriptors."""
    by = by or Projections.shipped()
    native = library()
    descriptors = np.ascontiguousarray(descriptors)
    return _encode(descriptors, by) if native is None else _native(native, descriptors, by)


def _native(native: ctypes.CDLL, descriptors: U8, by: Projections) -> Codes:
    codes = np.empty(len(descriptors), np.uint64)
    margins = np.empty((len(descriptors), BITS), np.int32)
    arrays = (PAIRS, by.symmetric, by.antisymmetric, by.centre, codes, margins)
    native.filigrane_encode(address(descriptors), ctypes.c_int64(len(descriptors)), *(address(a) for a in arrays))
    return Codes(codes, margins)


def _encode(descriptors: U8, by: Projections) -> Codes:
    # double precision: sums of integers below 2^53 are exact
    sums, differences = halves(descriptors)
    values = sums.astype(float) @ by.symmetric.T.astype(float) - by.centre
    turned = differences.astype(float) @ by.antisymmetric.T.astype(float)
    bits = np.packbits(np.concatenate([values > 0, turned > 0], axis=1), axis=1)
    return Codes(bits.view(">u8").astype(np.uint64).ravel(), np.abs(values).astype(np.int32))


def distances(codes: U64, code: np.uint64) -> tuple[U8, npt.NDArray[np.bool_]]:
    """Bits in which n codes differ from one code or from its mirror, whichever is nearer, and whether it was the mirror."""
    difference = codes ^ code
    plain = np.bitwise_count(difference)
    mirrored = np.bitwise_count(difference ^ ANTISYMMETRIC)
    return np.minimum(plain, mirrored), mirrored < plain


def log(count: int) -> int:
    """256 ln(count), of huge counts rounded as the native library does it."""
    more = 0
    while count >= len(LOGS):
        count, more = count >> 1, more + int(LOGS[2])
    return int(LOGS[count]) + more
