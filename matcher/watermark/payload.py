"""24-bit payloads: signs of the pattern's coefficients, which one fast transform tells apart.

The coefficients are dealt into four parts, and each part carries one symbol of 12 bits: m1, m2, m1 + m2 and m1 + a m2 in GF(4096), a
Reed-Solomon code. Two payloads share at most one symbol. In a part each coefficient i gets a column b_i, drawn by the key from 0..4095
independently of the Gaussian numbers g, and symbol m multiplies g_i by the sign H[m, b_i] of the Hadamard matrix of order 4096. Symbol 0
changes nothing, so a mark without payload is that of payload 0.

What is observed is a term c_i = Re(conj(g_i) x_i) for each coefficient, and the statistic of a symbol is the sum of H[m, b_i] c_i: for all
4096 at once a bincount over b and a fast Walsh-Hadamard transform. That of a payload is the sum over the parts.

How sure a payload is: to who does not know the key, u_i = H[m, b_i] g_i says nothing of b_i, as g is symmetric. Given what was marked and
whatever became of it, the statistic of any other symbol is therefore the sum of e_i c_i with independent fair signs e_i, which reaches t
with a probability of at most exp(-t^2 / 2v), v the sum of c_i^2 (Hoeffding 1963). A wrong payload shares no part with the true one, or one
of four, and 4095 do so with each part. That makes five families of wrong payloads; that any member of one looks as likely as what was
found has a probability of at most its size times the bound, over the parts that are not shared. `doubt` is five times the largest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import exp
from typing import Final

import numpy as np
import numpy.typing as npt

from matcher.pixels import F64

BITS: Final = 24
MAX_PAYLOAD: Final = (1 << BITS) - 1
PARTS: Final = 4
_ORDER: Final = 1 << 12
_POLYNOMIAL: Final = 0x1053
"""x^12 + x^6 + x^4 + x + 1, primitive."""
_LISTED: Final = 128
_ALL: Final = 1 << 14
"""Up to so many payloads each is tried; of more, those that have promising symbols."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Found:
    """The payload with the largest `statistic`, and the `doubt`: whatever d, a marked picture is taken to carry a wrong payload with a
    doubt of d or less with a probability of d at most."""

    payload: int
    statistic: float
    doubt: float


def signs(key: bytes, count: int, payload: int) -> npt.NDArray[np.int8]:
    """+1 or -1 for each of `count` coefficients."""
    if not payload:
        return np.ones(count, np.int8)
    said = np.array(symbols(np.int64(payload)))[np.arange(count) % PARTS]
    odd = np.bitwise_count(said & _columns(key, count)) & 1
    return np.asarray(1 - 2 * odd.astype(np.int8), np.int8)


def symbols(payload: Integers | np.int64) -> tuple[Integers, ...]:
    """The four symbols (0..4095) of each payload."""
    first, second = payload >> 12, payload & (_ORDER - 1)
    doubled = second << 1
    times = doubled ^ (_POLYNOMIAL * (doubled >> 12))
    return tuple(np.asarray(symbol) for symbol in (first, second, first ^ second, first ^ times))


def find(terms: F64, key: bytes, largest: int = MAX_PAYLOAD) -> Found:
    """The likeliest of the payloads 0..`largest`, for one term for each coefficient."""
    columns = _columns(key, len(terms))
    parts = np.array([_transform(np.bincount(columns[p::PARTS], terms[p::PARTS], _ORDER)) for p in range(PARTS)])
    payloads = np.arange(largest + 1) if largest < _ALL else _promising(parts, largest)
    each = np.array([parts[p, symbol] for p, symbol in enumerate(symbols(payloads))])
    best = int(each.sum(axis=0).argmax())
    power = np.array([np.sum(terms[p::PARTS] ** 2) for p in range(PARTS)])
    return Found(int(payloads[best]), float(each[:, best].sum()), doubt(each[:, best], power))


def doubt(statistics: F64, power: F64) -> float:
    """What `Found.doubt` is, for a payload with these four statistics, `power` being the sums of squared terms of the parts."""
    reached, left = statistics.sum(), power.sum()
    families = [(MAX_PAYLOAD, reached, left)]
    families += [(_ORDER - 1, reached - shared, left - its) for shared, its in zip(statistics, power, strict=True)]
    return min(1.0, len(families) * max(size * _tail(t, v) for size, t, v in families))


def _tail(t: float, v: float) -> float:
    """Hoeffding's bound for a sum of terms with random signs."""
    return exp(-t * t / (2 * v)) if t > 0 and v > 0 else 1.0


def _columns(key: bytes, count: int) -> Integers:
    stream = hashlib.shake_256(b"filigrane payload 1" + key).digest(2 * count)
    return np.frombuffer(stream, "<u2").astype(np.int64) & (_ORDER - 1)


def _transform(sums: npt.ArrayLike) -> F64:
    """The Walsh-Hadamard transform, in the order of the bits."""
    values = np.asarray(sums, np.float64)
    for step in range(12):
        pairs = values.reshape(-1, 2, 1 << step)
        values = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1)
    return values.reshape(-1)


def _promising(parts: F64, largest: int) -> Integers:
    """Payloads whose own two symbols are both among the likelier ones."""
    first, second = _likely(parts[0, : (largest >> 12) + 1]), _likely(parts[1])
    payloads = (first[:, None] << 12 | second).reshape(-1)
    return payloads[payloads <= largest]


def _likely(statistics: F64) -> Integers:
    return np.argpartition(-statistics, min(_LISTED, len(statistics)) - 1)[:_LISTED]
