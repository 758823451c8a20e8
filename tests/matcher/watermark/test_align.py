"""Queries are laid over the registered picture to a fraction of a pixel of its grid; where nothing can be seen, by the mark itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from bench.copies.sets import sample
from matcher.pixels import F64, U8, flip, gray, scaling
from matcher.watermark.align import align, lay
from matcher.watermark.detect import MAX_P, detect
from matcher.watermark.embed import embed
from matcher.watermark.keys import coefficients, grid, pattern
from matcher.watermark.query import Query
from matcher.watermark.registration import Registration
from matcher.watermark.residual import spectrum
from matcher.watermark.significance import p_value
from matcher.watermark.small import reference, small_picture
from matcher.watermark.sync import SHIFTS, best_shift, search
from tests.matcher.pictures import captioned, crop, jpeg, mirror, photo, resize, slanted

_KEY = bytes(range(32))
_PICTURES: dict[str, Callable[[], U8]] = {
    "noise": lambda: photo(3, 900, 675),
    "astronaut": lambda: sample("astronaut.png"),
    "rocket": lambda: sample("rocket.jpg"),
}


class _Edit(NamedTuple):
    """A picture that was edited, and the 3 x 3 transform of its pixels."""

    rgb: U8
    transform: F64


def _moved(x: float, y: float) -> F64:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def _cropped(rgb: U8, left: float, top: float, share: float) -> _Edit:
    return _Edit(crop(rgb, left, top, share), _moved(-int(left * rgb.shape[1]), -int(top * rgb.shape[0])))


def _resized(rgb: U8, factor: float) -> _Edit:
    small = resize(rgb, factor)
    return _Edit(small, scaling((rgb.shape[1], rgb.shape[0]), (small.shape[1], small.shape[0])))


def _turned(rgb: U8, degrees: float) -> _Edit:
    height, width = rgb.shape[:2]
    matrix = np.vstack([cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0), [0, 0, 1]])
    return _Edit(np.asarray(cv2.warpPerspective(rgb, matrix, (width, height), flags=cv2.INTER_CUBIC), np.uint8), matrix)


def _both(first: _Edit, then: Callable[[U8], _Edit]) -> _Edit:
    second = then(first.rgb)
    return _Edit(second.rgb, second.transform @ first.transform)


_EDITS: dict[str, Callable[[U8], _Edit]] = {
    "JPEG 30": lambda p: _Edit(jpeg(p, 30), np.eye(3)),
    "a third of the size": lambda p: _resized(p, 0.33),
    "a tenth of it": lambda p: _cropped(p, 0.3, 0.2, 0.32),
    "mirrored": lambda p: _Edit(mirror(p), flip(p.shape[1])),
    "turned a little": lambda p: _turned(p, 7),
    "turned much": lambda p: _turned(p, 130),
    "at a slant": lambda p: _Edit(*slanted(p)),
    "captioned": lambda p: _Edit(captioned(p), np.eye(3)),
    "a quarter of it, half the size, mirrored": lambda p: _both(
        _both(_cropped(p, 0.1, 0.4, 0.5), lambda q: _resized(q, 0.5)), lambda q: _Edit(mirror(q), flip(q.shape[1]))
    ),
}


@lru_cache
def _marked(name: str) -> tuple[U8, Registration]:
    return embed(_PICTURES[name](), key=_KEY)


@pytest.mark.parametrize("name", _PICTURES)
@pytest.mark.parametrize("edit", _EDITS)
def test_known_transforms_are_found_to_half_a_pixel_of_the_grid(name: str, edit: str) -> None:
    marked, registration = _marked(name)
    query, truth = _EDITS[edit](marked)
    aligned = align(gray(query), registration, thorough=True)
    assert aligned is not None
    assert _miss(aligned.transform, truth, registration, aligned.mask > 0) < 0.5


def _miss(found: F64, truth: F64, registration: Registration, shown: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    """Mean distance, in pixels of the grid, between the two places of what is `shown`, on half as many pixels each way."""
    size = registration.width, registration.height
    to_grid = scaling(size, grid(*size))
    y, x = 2 * np.array(np.nonzero(shown)) + 0.5
    points = np.stack([x, y, np.ones(len(x))])[:, ::101]
    back = to_grid @ np.linalg.inv(truth) @ found @ np.linalg.inv(to_grid) @ points
    return float(np.hypot(*(back[:2] / back[2] - points[:2])).mean())


def test_other_pictures_are_not_aligned() -> None:
    registration = _marked("noise")[1]
    for other in (photo(4), crop(photo(5), 0.1, 0.1, 0.4), sample("coffee.png"), np.full((300, 400, 3), 128, np.uint8)):
        assert align(gray(other), registration, thorough=True) is None


def _flat() -> U8:
    """Mist: a gradient in which no place can be told from its neighbours."""
    y, x = np.mgrid[0:768, 0:1024]
    return np.repeat((110 + 40 * y / 768 + 20 * x / 1024).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("form", ["as it is", "half the size", "mirrored"])
def test_a_flat_part_is_found_by_its_mark(form: str) -> None:
    marked, registration = embed(_flat(), key=_KEY)
    part = _cropped(marked, 0.42, 0.31, 0.4)
    change: dict[str, Callable[[U8], _Edit]] = {
        "as it is": lambda q: _Edit(jpeg(q, 90), np.eye(3)),
        "half the size": lambda q: _resized(q, 0.5),
        "mirrored": lambda q: _Edit(mirror(q), flip(q.shape[1])),
    }
    query, truth = _both(part, change[form])
    found = detect(query, registration)
    assert found.p_value <= MAX_P
    assert found.transform is not None
    height, width = query.shape[:2]
    corners = np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1.0]])
    back = found.transform @ np.linalg.inv(truth) @ corners
    assert np.abs(back[:2] / back[2] - corners[:2]).max() < 3
    assert detect(query, Registration(bytes(32), registration.small, 1024, 768, registration.pixel_hash)).p_value > 1e-6


def test_looking_for_a_mark_everywhere_is_paid_for() -> None:
    """Wrong keys over a marked query, each at its best place: what is reported is below p no more often than p, although one statistic that
    was not chosen would be far smaller."""
    marked, registration = embed(photo(7, 128, 96), key=_KEY)
    query = Query(gray(crop(marked, 0.2, 0.2, 0.6)))
    known, forms = reference(registration), (query.form(False), query.form(True))
    z, among = [], 0
    for number in range(400):
        drawn = coefficients(number.to_bytes(32, "big"), known.grid)
        found = search(pattern(drawn, known.grid), known.size, forms)
        assert found is not None
        assert among in (0, found.among)
        among = found.among
        aligned = lay(known, query, found.transform, found.flipped)
        assert aligned is not None
        z.append(best_shift(spectrum(aligned), drawn, known.grid))
    assert np.mean(z) > 1
    p = np.array([p_value(each, among * SHIFTS) for each in z])
    for level in (0.5, 0.1, 0.02):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level / len(p))


def test_the_small_picture_of_noise_fits_a_registration() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8)
    assert len(small_picture(noise)) <= 44_000
