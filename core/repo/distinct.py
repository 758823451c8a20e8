"""How many different things were seen, in a few bytes: the same thing again changes nothing.

HyperLogLog with 2,048 registers (Flajolet et al., 2007): the standard error is 2.3 %, and well below that for up to some thousand things,
where registers that are still empty are counted (linear counting, Whang et al., 1990).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Final

_BITS: Final = 11
REGISTERS: Final = 1 << _BITS
_REST: Final = 64 - _BITS
_SCALE: Final = 0.7213 / (1 + 1.079 / REGISTERS) * REGISTERS * REGISTERS


def seen(sketch: bytes, things: Iterable[str]) -> bytes:
    """The sketch (empty: of nothing) with these things in it; equal to what it was when it knew them all."""
    registers = bytearray(sketch or bytes(REGISTERS))
    for thing in things:
        digest = int.from_bytes(hashlib.blake2b(thing.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
        at, rest = digest >> _REST, digest & (1 << _REST) - 1
        registers[at] = max(registers[at], _REST - rest.bit_length() + 1)
    return bytes(registers)


def estimate(sketch: bytes) -> int:
    """How many different things it has seen, about."""
    if not sketch:
        return 0
    raw = _SCALE / math.fsum(2.0**-register for register in sketch)
    empty = sketch.count(0)
    return round(REGISTERS * math.log(REGISTERS / empty) if empty and raw <= 2.5 * REGISTERS else raw)
