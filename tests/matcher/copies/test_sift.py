"""The feature extractor: two forms with one result, on whatever picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher.copies import sift_pure
from matcher.copies.native import library
from matcher.copies.sift import MAX_SIDE, extract
from matcher.pixels import F32, U8, gray, resized
from tests.matcher.pictures import photo

native = pytest.mark.skipif(library() is None, reason="the native library is not built")


def small(seed: int, side: int = 256) -> U8:
    return resized(gray(photo(seed)), side)


def same(a: tuple[F32, U8], b: tuple[F32, U8]) -> bool:
    """The cosine of a direction may be another last digit in another library of mathematics, and so a descriptor."""
    return (
        a[0].shape == b[0].shape and bool(np.allclose(a[0], b[0], atol=1e-3)) and int(np.abs(a[1].astype(int) - b[1]).max(initial=0)) <= 2
    )


@native
@pytest.mark.parametrize("seed", range(6))
def test_both_forms_come_to_the_same(seed: int) -> None:
    picture = small(seed, (200, 256, 333)[seed % 3])
    assert same(extract(picture, 300), sift_pure.extract(picture, 300))
    assert len(extract(picture, 300)[0]) > 100


@native
@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 40), st.sampled_from(["noise", "blocks", "flat"]), st.integers(1, 60))
def test_both_forms_come_to_the_same_on_small_pictures(width: int, height: int, seed: int, kind: str, count: int) -> None:
    draw = np.random.default_rng(seed)
    block = {"noise": 1, "blocks": 7, "flat": 1000}[kind]
    levels = draw.integers(0, 256, (height // block + 1, width // block + 1), np.uint8)
    picture = levels.repeat(block, axis=0).repeat(block, axis=1)[:height, :width]
    assert same(extract(picture, count), sift_pure.extract(picture, count))


@pytest.mark.parametrize("shape", [(1, 1), (1, MAX_SIDE), (MAX_SIDE, 1), (15, 400), (256, 256)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_where_nothing_is_nothing_is_found(shape: tuple[int, int], level: int) -> None:
    points, descriptors = extract(np.full(shape, level, np.uint8), 300)
    assert points.shape == (0, 4)
    assert descriptors.shape == (0, 128)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_noise_on_a_flat_picture_gives_no_points(sigma: float) -> None:
    draw = np.random.default_rng(1)
    picture = (128 + draw.normal(0, sigma, (192, 256))).round().astype(np.uint8)
    assert len(extract(picture, 300)[0]) <= 5


def test_little_contrast_gives_as_many_points() -> None:
    picture = small(3)
    faint = (picture * 0.2 + 100).round().astype(np.uint8)
    assert len(extract(faint, 300)[0]) > 0.5 * len(extract(picture, 300)[0])


def test_points_spread_over_the_picture() -> None:
    points, _ = extract(small(1), 128)
    corners = (points[:, 0] > 128) * 2 + (points[:, 1] > 96)
    assert np.bincount(corners.astype(int), minlength=4).min() > 20


@pytest.mark.parametrize("degrees", [30.0, 90.0, 200.0])
def test_points_turn_and_grow_with_the_picture(degrees: float) -> None:
    picture = small(2)
    middle = (127.5, 95.5)
    matrix = cv2.getRotationMatrix2D(middle, -degrees, 0.8)
    turned = np.asarray(cv2.warpAffine(picture, matrix, (256, 192), flags=cv2.INTER_AREA, borderValue=128), np.uint8)
    (before, first), (after, second) = extract(picture, 300), extract(turned, 300)
    distances = np.linalg.norm(first[:, None].astype(float) - second[None].astype(float), axis=2)
    nearest = distances.argmin(axis=1)
    mutual = distances.argmin(axis=0)[nearest] == np.arange(len(nearest))
    place = before[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    right = mutual & (np.linalg.norm(place - after[nearest, :2], axis=1) < 2.5)
    assert right.sum() > 50
    turn = (after[nearest, 3] - before[:, 3] - degrees + 180) % 360 - 180
    assert np.median(np.abs(turn[right])) < 3
    assert 0.75 < np.median(after[nearest, 2][right] / before[:, 2][right]) < 0.85


@pytest.mark.parametrize("array", [np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8), np.zeros((4, 4), np.float32)])
def test_what_is_no_gray_picture_is_refused(array: U8) -> None:
    with pytest.raises(ValueError, match="features are of"):
        extract(array, 10)
