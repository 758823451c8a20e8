"""The suite is what the tables say, the same each time, and where an attack puts the pixels is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from bench.copies.attacks import Attack
from bench.watermark.attacks import ATTACKS, EXTREMES
from bench.watermark.truth import transform
from matcher.pixels import F64
from tests.matcher.pictures import photo

_KNOWN = ("crop_10", "crop_5", "rotate_15", "rotate_45", "rotate_90", "perspective", "mirror", "resize_50", "rotate_5")


def test_there_are_42_and_two_extremes() -> None:
    assert len(ATTACKS) == 42
    assert set(EXTREMES) == {"crop_5", "thumbnail_100px"}


@pytest.mark.parametrize("attack", [*ATTACKS.values(), *EXTREMES.values()], ids=[*ATTACKS, *EXTREMES])
def test_an_attack_changes_the_picture_in_one_way_per_name(attack: Attack) -> None:
    rgb = photo(3, 300, 200)
    before = rgb.copy()
    once, again = attack(rgb, "a.jpg"), attack(rgb, "a.jpg")
    assert once.dtype == np.uint8
    assert np.array_equal(once, again)
    assert once.shape != rgb.shape or not np.array_equal(once, rgb)
    assert np.array_equal(rgb, before)


@pytest.mark.parametrize("name", _KNOWN)
def test_the_transform_is_where_the_pixels_go(name: str) -> None:
    """Smooth pictures agree where the transform says: what is left is small beside what one pixel of shift would leave."""
    attack = {**ATTACKS, **EXTREMES}[name]
    rgb = np.asarray(cv2.GaussianBlur(photo(3, 600, 450), (0, 0), 4), np.uint8)
    query = attack(rgb, "a.jpg").astype(np.float32)
    matrix = transform(attack, "a.jpg", (600, 450))
    assert matrix is not None
    size = query.shape[1], query.shape[0]
    moved = cv2.warpPerspective(rgb.astype(np.float32), matrix, size, flags=cv2.INTER_LINEAR, borderValue=(-1, -1, -1))
    off = cv2.warpPerspective(rgb.astype(np.float32), _by(0.7) @ matrix, size, flags=cv2.INTER_LINEAR)
    inside = cv2.erode((moved[..., 0] >= 0).astype(np.uint8), np.ones((7, 7), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    assert np.abs(moved - query)[inside].mean() < 0.6 * np.abs(off - query)[inside].mean()


def _by(pixels: float) -> F64:
    return np.array([[1, 0, pixels], [0, 1, pixels], [0, 0, 1]])


def test_where_the_pixels_go_on_a_page_is_not_known() -> None:
    assert transform(ATTACKS["page"], "a.jpg", (600, 450)) is None
