"""24-bit payloads: signs of the pattern's coefficients, which one fast transform tells apart.

The coefficients are dealt into twelve parts, and each part carries one symbol of 12 bits: a payload is two numbers m1, m2 in GF(4096), and
its symbols are m1, m2, m1 + m2, m1 + a m2 ... m1 + a^9 m2, a Reed-Solomon code. Two payloads share at most one symbol. In a part each
coefficient i gets a column b_i, drawn by the key from 0..4095 independently of the Gaussian numbers g, and symbol m multiplies g_i by the
sign H[m, b_i] of the Hadamard matrix of order 4096. Symbol 0 changes nothing, so a mark without payload is that of payload 0. Before scheme
3 there were four parts, with the first four symbols.

What is observed is a term c_i = Re(conj(g_i) x_i) for each coefficient, and the statistic of a symbol is the sum of H[m, b_i] c_i: for all
4096 at once a bincount over b and a fast Walsh-Hadamard transform. That of a payload is the sum over the parts.

How sure a payload is: to who does not know the key, u_i = H[m, b_i] g_i says nothing of b_i, as g is symmetric. Given what was marked and
whatever became of it, the statistic of any other symbol is therefore the sum of e_i c_i with independent fair signs e_i, which reaches t
with a probability of at most 3.18 times a Gaussian tail (Bentkus and Dzindzalieta 2015). A wrong payload shares no part with the true one,
or one of twelve, and 4095 do so with each part. That makes thirteen families of wrong payloads; that any member of one looks as likely as
what was found has a probability of at most its size times the bound, over the parts that are not shared. `doubt` is thirteen times the
largest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from math import erfc, exp, sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from matcher.pixels import F64

BITS: Final = 24
MAX_PAYLOAD: Final = (1 << BITS) - 1
PARTS: Final = 12
_FEWER: Final = 4
_MORE_SINCE: Final = 3
_SIDE: Final = 1 << 6
_ORDER: Final = _SIDE**2
_POLYNOMIAL: Final = 0x1053
"""x^12 + x^6 + x^4 + x + 1, primitive."""
_LISTED: Final = 64
_ALL: Final = 1 << 14
"""Up to so many payloads each is tried; of more, those that have promising symbols."""
_RADEMACHER: Final = 1 / (2 * erfc(1))
"""1 / (4 P(N >= sqrt 2)): how many times a Gaussian tail the tail of a sum with random signs is at most."""

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Found:
    """The payload with the largest `statistic`, and the `doubt`: whatever d, a marked picture is taken to carry a wrong payload with a
    doubt of d or less with a probability of d at most."""

    payload: int
    statistic: float
    doubt: float


def parts_of(scheme: int) -> int:
    """Into how many parts a scheme deals the coefficients."""
    return PARTS if scheme >= _MORE_SINCE else _FEWER


def signs(key: bytes, count: int, payload: int, parts: int = PARTS) -> npt.NDArray[np.int8]:
    """+1 or -1 for each of `count` coefficients."""
    if not payload:
        return np.ones(count, np.int8)
    said = np.array(symbols(np.int64(payload), parts))[np.arange(count) % parts]
    odd = np.bitwise_count(said & _columns(key, count)) & 1
    return np.asarray(1 - 2 * odd.astype(np.int8), np.int8)


def symbols(payload: Integers | np.int64, parts: int = PARTS) -> tuple[Integers, ...]:
    """The symbols (0..4095) of each payload."""
    first, second = payload >> 12, payload & (_ORDER - 1)
    return tuple(np.asarray(_times(one)[first] ^ _times(two)[second]) for one, two in _code()[:parts])


def find(terms: F64, key: bytes, largest: int = MAX_PAYLOAD, parts: int = PARTS) -> Found:
    """The likeliest of the payloads 0..`largest`, for one term for each coefficient."""
    columns = _columns(key, len(terms))
    likely = _transform(np.array([np.bincount(columns[p::parts], terms[p::parts], _ORDER) for p in range(parts)]))
    payload = _of_few(likely, largest) if largest < _ALL else _of_promising(likely, largest)
    each = np.array([statistics[symbol] for statistics, symbol in zip(likely, symbols(np.int64(payload), parts), strict=True)])
    power = np.array([np.sum(terms[p::parts] ** 2) for p in range(parts)])
    return Found(payload, float(each.sum()), doubt(each, power))


def doubt(statistics: F64, power: F64) -> float:
    """What `Found.doubt` is, for a payload with these statistics of its parts, `power` being the sums of their squared terms."""
    reached, left = statistics.sum(), power.sum()
    families = [(MAX_PAYLOAD, reached, left)]
    families += [(_ORDER - 1, reached - shared, left - its) for shared, its in zip(statistics, power, strict=True)]
    return min(1.0, len(families) * max(size * tail(t, v) for size, t, v in families))


def tail(t: float, v: float) -> float:
    """At least the chance that a sum of terms with random signs reaches t; `v`: the sum of their squares."""
    if t <= 0 or v <= 0:
        return 1.0
    return min(exp(-t * t / (2 * v)), _RADEMACHER * erfc(t / sqrt(2 * v)) / 2)


def _columns(key: bytes, count: int) -> Integers:
    stream = hashlib.shake_256(b"filigrane payload 1" + key).digest(2 * count)
    return np.frombuffer(stream, "<u2").astype(np.int64) & (_ORDER - 1)


def _transform(sums: F64) -> F64:
    """The Walsh-Hadamard transform of each row of 4096, in the order of the bits: rows and columns of a square in turn."""
    side = np.arange(_SIDE)
    square = 1.0 - 2 * (np.bitwise_count(side[:, None] & side) & 1)
    return np.asarray(square @ sums.reshape(-1, _SIDE, _SIDE) @ square).reshape(sums.shape)


def _of_few(likely: F64, largest: int) -> int:
    """The payload 0..`largest` with the largest sum of its symbols' statistics, which are given for each part (rows) and symbol."""
    said = symbols(np.arange(largest + 1), len(likely))
    return int(sum(statistics[symbol] for statistics, symbol in zip(likely, said, strict=True)).argmax())


def _of_promising(likely: F64, largest: int) -> int:
    """The same, of those that have likely symbols in two neighbouring parts."""
    parts = len(likely)
    listed = np.argpartition(-likely, _LISTED, axis=1)[:, :_LISTED]
    best, found = -np.inf, 0
    for part in range(parts):
        one, two = listed[part], listed[(part + 1) % parts]
        said = [_times(a)[one][:, None] ^ _times(b)[two] for a, b in _told_by(part, (part + 1) % parts)[:parts]]
        payloads = said[0] << 12 | said[1]
        total = np.where(payloads <= largest, sum(statistics[symbol] for statistics, symbol in zip(likely, said, strict=True)), -np.inf)
        if total.max() > best:
            best, found = float(total.max()), int(payloads.flat[total.argmax()])
    return found


@cache
def _told_by(one: int, two: int) -> tuple[tuple[int, int], ...]:
    """(a, b) of each part: its symbol is a s + b t, for the symbols s and t of two parts."""
    (a, b), (c, d) = _code()[one], _code()[two]
    over = _inverse(_product(a, d) ^ _product(b, c))
    inverse = [_product(over, x) for x in (d, b, c, a)]
    first, second = ((inverse[column], inverse[column + 2]) for column in (0, 1))
    return tuple((_product(e, first[0]) ^ _product(f, first[1]), _product(e, second[0]) ^ _product(f, second[1])) for e, f in _code())


@cache
def _code() -> tuple[tuple[int, int], ...]:
    """(a, b) of each part, whose symbol is a m1 + b m2: no two are multiples of each other."""
    power, code = 1, [(1, 0), (0, 1)]
    while len(code) < PARTS:
        code.append((1, power))
        power = _product(power, 2)
    return tuple(code)


@cache
def _times(by: int) -> Integers:
    """The products of that element of GF(4096) and each of 0..4095."""
    products, other = np.zeros(_ORDER, np.int64), np.arange(_ORDER)
    while by:
        products ^= other * (by & 1)
        by, other = by >> 1, other << 1
        other ^= _POLYNOMIAL * (other >> 12)
    return products


def _product(a: int, b: int) -> int:
    """In GF(4096)."""
    return int(_times(a)[b])


def _inverse(a: int) -> int:
    """The element whose product with a is 1."""
    return int(np.flatnonzero(_times(a) == 1)[0])
