"""The p-value of a wrong key is what it says, on originals and on copies with another key; many at once are detection's statistic."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import pytest

from bench.watermark.wrong_keys import sigma, statistics, tails, unit
from matcher.pixels import F64, gray
from matcher.watermark.align import align
from matcher.watermark.detect import statistic
from matcher.watermark.embed import embed
from matcher.watermark.keys import C64, grid
from matcher.watermark.residual import spectrum
from tests.matcher.pictures import jpeg, photo, resize

_SHAPE = (600, 400)
_PICTURES = 12
_KEYS = 250


@lru_cache
def _observed() -> tuple[C64, ...]:
    """Of unmarked originals and of copies with another key in turn, each compressed and made smaller."""
    found = []
    for seed in range(_PICTURES):
        rgb = photo(seed, *_SHAPE)
        marked, registration = embed(rgb, key=bytes([seed]) * 32)
        query = jpeg(resize(marked if seed % 2 else rgb, 0.8), 60)
        aligned = align(gray(query), registration)
        assert aligned is not None
        found.append(spectrum(aligned))
    return tuple(found)


@lru_cache
def _statistics() -> F64:
    return statistics(np.stack([unit(x) for x in _observed()]), grid(*_SHAPE), "test", range(_KEYS))


def test_it_is_the_statistic_of_detection() -> None:
    key = hashlib.sha256(b"wrong key 3, test").digest()
    expected = [statistic(x, key, grid(*_SHAPE)) for x in _observed()]
    assert np.allclose(_statistics()[3], expected, atol=1e-3)


@pytest.mark.parametrize("threshold", [0.5, 0.1, 0.01, 0.001])
def test_as_many_wrong_keys_as_the_p_value_says(threshold: float) -> None:
    """3,000 pairs, seeded: within four standard deviations."""
    assert abs(sigma(tails(_statistics()), threshold)["sigma"]) < 4


def test_the_statistic_has_mean_0_and_variance_1() -> None:
    z = _statistics()
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / z.size)


def test_sigma_counts() -> None:
    assert sigma(np.array([0.05] * 20 + [0.5] * 80), 0.1) == {"counted": 20, "expected": 10.0, "sigma": 3.33}
