"""The attackers do what is said of them."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pytest

from bench.copies.sets import Picture
from bench.watermark.gallery import difference, smoothest
from bench.watermark.security.case import case, least
from bench.watermark.security.collusion import MIXES, mixed
from bench.watermark.security.estimate import shown, taken_off
from bench.watermark.security.insider import restored, without
from bench.watermark.security.removal import bent
from bench.watermark.significance import MOST, z_of
from tests.matcher.pictures import photo

_OWNED = case(Picture("a", partial(photo, 4, 480, 360)))


def test_mixes_of_copies() -> None:
    copies = np.array([0, 10, 50], np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    mixed_to = {how: float(np.asarray(mix(copies))[0, 0, 0]) for how, mix in MIXES.items()}
    assert mixed_to == {"mean": 20, "median": 10, "lowest": 0, "highest": 50, "middle of lowest and highest": 25, "patchwork": 0}


def test_colluders_are_traced_and_nobody_else() -> None:
    outcomes = mixed(_OWNED, (2,))
    assert all(outcome.found == 1 for outcome in outcomes if not outcome.what.startswith("innocent"))
    assert all(outcome.found == 0 for outcome in outcomes if outcome.what.startswith("innocent"))


def test_who_has_the_key_takes_the_mark_off_and_who_guesses_does_not() -> None:
    key = _OWNED.registration.key
    assert _OWNED.outcome("", without(_OWNED.marked, key)).z < _OWNED.outcome("", _OWNED.marked).z / 4
    assert _OWNED.outcome("", without(_OWNED.marked, bytes(32))).found == 1


def test_what_the_small_picture_shows_replaces_what_was_marked() -> None:
    left = _OWNED.outcome("", restored(_OWNED))
    assert left.z < _OWNED.outcome("", _OWNED.marked).z / 2
    assert left.psnr is not None
    assert left.psnr > 25


def test_bending_moves_no_pixel_further_than_it_says() -> None:
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :, None], 100, 0).repeat(3, 2)
    moved = np.abs(bent(ramp, 4, "a").astype(int) - ramp)[:, 10:-10]
    assert 1 <= moved.max() <= 5


def test_the_least_that_is_enough() -> None:
    assert least(lambda value: value >= 3.25, 64) == pytest.approx(3.25, abs=0.02)
    assert least(lambda value: 3.25 <= value < 4.25, 64) == pytest.approx(3.25, abs=0.02)
    assert least(lambda value: False, 64) == 64


def test_the_smoothest_part_is_found() -> None:
    rgb = photo(1, 200, 150).copy()
    rgb[60:120, 40:110] = 77
    assert rgb[smoothest(rgb)].std() == 0
    assert (difference(rgb, rgb) == 128).all()


def test_z_of_p() -> None:
    assert z_of(9.0) == pytest.approx(5.998, abs=1e-3)
    assert (z_of(0.0), z_of(400.0)) == (0.0, MOST)


def test_what_shows_of_a_mark_is_guessed_from_the_copy_alone() -> None:
    soft = case(Picture("soft", lambda: np.asarray(cv2.GaussianBlur(photo(6, 480, 360), (0, 0), 9), np.uint8)))
    numbers = shown(soft.marked)
    assert np.array_equal(taken_off(soft.marked, numbers, 0), soft.marked)
    assert soft.outcome("", taken_off(soft.marked, numbers, 1)).z < 0.9 * soft.outcome("", soft.marked).z
