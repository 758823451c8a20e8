"""The statistic where the place is known: what is left of a mark, whatever alignment makes of it."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.random import default_rng

from matcher.pixels import F32, U8, gray, scaling
from matcher.watermark.align import Aligned
from matcher.watermark.detect import statistic
from matcher.watermark.embed import embed
from matcher.watermark.keys import grid, halved
from matcher.watermark.registration import Registration
from matcher.watermark.residual import as_seen, spectrum
from matcher.watermark.small import reference
from tests.matcher.pictures import jpeg, photo

_KEY = bytes(range(32))


def _z(query: U8, registration: Registration, mask: F32 | None = None) -> float:
    """Of a query that shows the whole picture."""
    known = reference(registration)
    size = halved(known.grid)
    shown = cv2.resize(gray(query).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    seen = np.ones((size[1], size[0]), np.float32) if mask is None else mask
    query_size = query.shape[1], query.shape[0]
    aligned = Aligned(known, np.asarray(shown, np.float32), known.half, seen, scaling(known.size, query_size), query_size, True)
    return statistic(spectrum(aligned), registration.key, known.grid)


@pytest.mark.parametrize("size", [(64, 64), (64, 640), (640, 64), (66, 1500), (1500, 1100)])
def test_a_mark_is_in_pictures_of_every_shape(size: tuple[int, int]) -> None:
    marked, registration = embed(photo(2, *size), key=_KEY)
    assert _z(marked, registration) > 6
    assert abs(_z(photo(2, *size), registration)) < 5


@pytest.mark.parametrize("level", [1, 128, 250])
def test_a_picture_of_one_colour_carries_a_mark(level: int) -> None:
    marked, registration = embed(np.full((300, 400, 3), level, np.uint8), key=_KEY)
    assert _z(marked, registration) > 20


_EDITS: dict[str, Callable[[U8], U8]] = {
    "blurred": lambda p: np.asarray(cv2.GaussianBlur(p, (0, 0), 1.5), np.uint8),
    "sharpened": lambda p: np.asarray(cv2.addWeighted(p, 2.0, cv2.GaussianBlur(p, (0, 0), 2), -1.0, 0), np.uint8),
    "brighter": lambda p: np.asarray(cv2.convertScaleAbs(p, alpha=1.4, beta=10), np.uint8),
    "darker": lambda p: np.asarray(255 * (p / 255.0) ** 1.6, np.uint8),
    "negative slope of a curve": lambda p: np.asarray(np.minimum(p, 200), np.uint8),
    "compressed": lambda p: jpeg(p, 20),
}


@pytest.mark.parametrize("name", _EDITS)
def test_what_changes_the_whole_picture_is_fitted(name: str) -> None:
    marked, registration = embed(photo(1, 800, 600), key=_KEY)
    assert _z(_EDITS[name](marked), registration) > 10


def test_what_is_covered_counts_little() -> None:
    marked, registration = embed(photo(1, 800, 600), key=_KEY)
    covered = marked.copy()
    covered[100:400, 100:500] = default_rng(1).integers(0, 256, (300, 400, 3))
    assert _z(covered, registration) > 0.7 * _z(marked, registration) * np.sqrt(1 - 300 * 400 / (600 * 800))


def test_nothing_seen_is_nothing_found() -> None:
    marked, registration = embed(photo(1, 800, 600), key=_KEY)
    size = halved(grid(800, 600))
    assert _z(marked, registration, np.zeros((size[1], size[0]), np.float32)) == 0


def test_thumbnails_are_compared_with_what_they_can_show() -> None:
    original = gray(photo(1, 800, 600)).astype(np.float32)
    larger = as_seen(original, np.diag([1.5, 1.5, 1.0]), (1200, 900))
    assert larger is original
    smaller = as_seen(original, scaling((800, 600), (100, 75)), (100, 75))
    assert smaller.shape == original.shape
    thumbnail = cv2.resize(original, (100, 75), interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(thumbnail, (800, 600), interpolation=cv2.INTER_CUBIC)
    assert np.abs(smaller - enlarged).mean() < 0.3 * np.abs(original - enlarged).mean()


def test_a_thumbnail_still_says_whose_it_is() -> None:
    marked, registration = embed(photo(1, 1200, 900), key=_KEY)
    thumbnail = cv2.resize(marked, (100, 75), interpolation=cv2.INTER_AREA)
    assert _z(np.asarray(thumbnail, np.uint8), registration) > 6
