"""Many wrong keys against many queries at once: detection's statistic as a product of matrices."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from math import erfc, sqrt
from typing import Final

import numpy as np

from matcher.pixels import F32, F64
from matcher.watermark.keys import C64, coefficients

_ERFC: Final = np.vectorize(erfc, otypes=[float])


def unit(spectrum: C64) -> F32:
    """The observed spectrum as a vector of length 1, real parts before imaginary ones."""
    flat = np.concatenate([spectrum.real, spectrum.imag]).astype(np.float64)
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-30), np.float32)


def statistics(spectra: F32, size: tuple[int, int], kind: str, numbers: Iterable[int]) -> F64:
    """Keys x pictures. `spectra`: pictures x coefficients, each of length 1, on a grid of (width, height) `size`; the keys are named by
    `kind` and a number."""
    keys = [hashlib.sha256(f"wrong key {number}, {kind}".encode()).digest() for number in numbers]
    drawn = [coefficients(key, size) for key in keys]
    return np.asarray(np.stack([np.concatenate([c.real, c.imag]) for c in drawn]) @ spectra.T, np.float64)


def tails(z: F64) -> F64:
    """P(N(0, 1) >= z)."""
    return np.asarray(0.5 * _ERFC(z / sqrt(2)), np.float64)


def sigma(p: F64, threshold: float) -> dict[str, float]:
    """How many p-values are at most the threshold, how many should be, and how many standard deviations of a binomial lie between."""
    counted, expected = int((p <= threshold).sum()), p.size * threshold
    return {"counted": counted, "expected": expected, "sigma": round((counted - expected) / sqrt(expected * (1 - threshold)), 2)}
