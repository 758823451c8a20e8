from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import default_rng

from bench.copies.sets import sample
from bench.watermark.quality import psnr, ssim
from filigrane.demo import pictures as generated
from matcher.pixels import U8
from matcher.watermark.embed import embed
from matcher.watermark.masking import MIN_PSNR, POWER, strength
from tests.matcher.pictures import photo

_KEY = bytes(range(32))


def _even(width: int = 200, height: int = 160) -> U8:
    return np.full((height, width), 128, np.uint8)


def test_an_even_place_takes_little_and_texture_more() -> None:
    image = _even()
    image[:, 100:] = np.kron(default_rng(1).integers(108, 149, (40, 25)), np.ones((4, 4)))
    bound = strength(image)
    assert bound[:, :80] == pytest.approx(0.62, abs=0.01)
    assert bound[:, 130:].min() > 0.65


def test_a_lone_edge_is_no_texture() -> None:
    """Its standard deviation is 63.5: as texture it would hide a seventh of that."""
    edge = _even()
    edge[:, 100:] = 255
    assert strength(edge).max() < 0.62 + 63.5 / 7 / 5


def test_much_texture_keeps_to_the_power() -> None:
    for deviation in (0, 10, 40, 80):
        noise = default_rng(1).normal(128, deviation, (300, 400)).clip(0, 255).astype(np.uint8)
        assert np.mean(strength(noise) ** 2) <= POWER * 1.01


@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "moon.png", "brick.png", "camera.png"])
def test_marks_of_photos_are_hardly_there(name: str) -> None:
    rgb = sample(name)
    marked, _ = embed(rgb, key=_KEY)
    assert psnr(rgb, marked) >= MIN_PSNR
    assert ssim(rgb, marked) >= 0.985


@pytest.mark.parametrize("make", [generated.mountains, generated.marble, generated.city, generated.stained_glass])
def test_marks_of_drawn_scenes_are_hardly_there(make: Callable[[int], U8]) -> None:
    rgb = make(7)
    marked, _ = embed(rgb, key=_KEY)
    assert psnr(rgb, marked) >= MIN_PSNR
    assert ssim(rgb, marked) >= 0.985


def test_gray_stays_gray() -> None:
    gray = np.repeat(photo(1)[..., :1], 3, axis=2)
    marked, _ = embed(gray, key=_KEY)
    assert np.array_equal(marked[..., 0], marked[..., 1])
    assert np.array_equal(marked[..., 0], marked[..., 2])
    assert not np.array_equal(marked, gray)
