"""Are payloads as sure as they say? Wrong keys, for which every number is a chance hit; and right keys whose mark is nearly drowned.

A marked picture's spectrum is mixed with noise until its own payload has about the statistic where detection starts to answer. How often
another number is likelier there, at a doubt of d or less, may be a share d of the trials at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from bench.copies.work import followed
from bench.watermark.methods import key_of
from matcher.pixels import F32, F64
from matcher.watermark.detect import MAX_P
from matcher.watermark.keys import coefficients
from matcher.watermark.payload import MAX_PAYLOAD, Found, find
from matcher.watermark.significance import p_value

LEVELS: Final = (0.5, 0.1, 0.01)
DOUBTS: Final = (0.1, 1e-2, 1e-3, 1e-9)
TARGETS: Final = (5.5, 6.5, 7.5, 8.5, 9.5)
"""What the right payload's statistic is brought to."""


def wrong_keys(spectra: Mapping[str, F32], size: tuple[int, int], count: int) -> dict[str, Any]:
    """p-values of the likeliest of all payloads: they count 2^24 of them, so they may only be too large."""
    chosen = _in_turn(spectra, count)
    found = (_find(x, _key(f"{number} of {name}"), size) for number, (name, x) in enumerate(chosen))
    p = np.array([p_value(one.statistic, MAX_PAYLOAD + 1) for one in followed(found, count, "payloads of wrong keys")])
    below = {str(level): float(np.mean(p <= level)) for level in LEVELS}
    return {"trials": count, "below": below, "alarms": int((p <= MAX_P).sum())}


def drowned(marked: Mapping[str, F32], size: tuple[int, int], count: int) -> dict[str, Any]:
    """`marked`: spectra by the name that the key of their mark is made from, all with payload 0; `count` for each of the targets."""
    found = followed(_drowned(marked, size, count), count * len(TARGETS), "payloads nearly drowned")
    doubts, wrong = (np.array(column) for column in zip(*found, strict=True))
    rows = [{"doubt": d, "trials": len(doubts), "said": int((doubts <= d).sum()), "wrong": int(wrong[doubts <= d].sum())} for d in DOUBTS]
    return {"trials": len(doubts), "wrong": int(wrong.sum()), "rows": rows}


def _drowned(marked: Mapping[str, F32], size: tuple[int, int], count: int) -> Iterator[tuple[float, bool]]:
    """(doubt, whether the likeliest payload is a wrong one)."""
    dice = np.random.default_rng(0)
    for target in TARGETS:
        for name, x in _in_turn(marked, count):
            key = key_of(f"another of {name}")
            found = _find(_mixed(x, float(_terms(x, key, size).sum()), target, dice), key, size)
            yield found.doubt, found.payload != 0


def _mixed(x: F32, statistic: float, target: float, dice: np.random.Generator) -> F32:
    """Of length 1 again; noise adds its own chance to the statistic."""
    noise = dice.standard_normal(len(x), np.float32)
    share = min(1.0, target / max(statistic, 1e-9))
    return np.asarray(share * x + np.sqrt(1 - share**2) * noise / np.linalg.norm(noise), np.float32)


def _find(x: F32, key: bytes, size: tuple[int, int]) -> Found:
    return find(_terms(x, key, size), key)


def _terms(x: F32, key: bytes, size: tuple[int, int]) -> F64:
    """One for each coefficient; `x` holds real parts before imaginary ones."""
    drawn = coefficients(key, size)
    return np.asarray(drawn.real * x[: len(drawn)] + drawn.imag * x[len(drawn) :], np.float64)


def _in_turn(spectra: Mapping[str, F32], count: int) -> list[tuple[str, F32]]:
    items = list(spectra.items())
    return [items[number % len(items)] for number in range(count)]


def _key(name: str) -> bytes:
    return hashlib.sha256(f"wrong key with payload, {name}".encode()).digest()
