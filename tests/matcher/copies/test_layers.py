from __future__ import annotations

import cv2
import numpy as np
import pytest

from matcher.copies.layers import Grid, Laid, Layers, Pull, means
from matcher.pixels import F32, F64, U8, gray, resized
from tests.matcher.pictures import photo

_PICTURE = resized(gray(photo(1)), 256)
_SHIFT = np.array([[1.0, 0, 10], [0, 1, -6], [0, 0, 1]])


def moved(transform: F64) -> U8:
    return np.asarray(cv2.warpPerspective(_PICTURE, transform, _PICTURE.shape[::-1], flags=cv2.INTER_CUBIC), np.uint8)


def laid(source: U8, frame: U8) -> Laid:
    return Layers(np.eye(3), source, frame).laid()


def test_a_moved_picture_laid_over_its_original_agrees_where_both_are() -> None:
    laid = Layers(_SHIFT, _PICTURE, moved(_SHIFT)).laid()
    blocks = laid.blocks()
    rows, columns, *_ = Grid.of(_PICTURE.shape)
    whole = blocks.whole.reshape(rows, columns)
    assert not whole[:, 0].any()
    assert not whole[-1].any()
    assert whole[1:-1, 2:-1].all()
    textured = blocks.whole & (blocks.frame > 4)
    assert textured.sum() > 50
    assert blocks.ncc[textured].min() > 0.99
    assert np.allclose(blocks.source[textured], blocks.frame[textured], rtol=0.1)


_ASIDE = np.array([[1.003, 0.003, 0.9], [-0.003, 0.997, -0.6], [0, 0, 1]])
_SLANTED = np.array([[1.01, 0.0, -1.0], [0.0, 1.0, 0.5], [1e-4, -5e-5, 1]])


def corner_miss(transform: F64) -> float:
    """How far (pixels) it puts the corners away from where they belong."""
    corners = np.array([[0, 0, 1], [255, 0, 1], [0, 191, 1], [255, 191, 1]], float)
    there, wanted = (corners @ t.T for t in (transform, _SHIFT))
    return float(np.abs(there[:, :2] / there[:, 2:] - wanted[:, :2]).max())


@pytest.mark.parametrize("aside", [_ASIDE, _SLANTED], ids=["affine", "projective"])
def test_what_lies_a_little_beside_its_place_is_brought_there(aside: F64) -> None:
    frame = moved(_SHIFT)
    steps = list(Layers(_SHIFT @ aside, _PICTURE, frame).steps())
    before, after = (float(np.median(pull.slips(laid.whole & (pull.frame > 4)))) for laid, pull in (steps[0], steps[-1]))
    assert corner_miss(_SHIFT @ aside) > 2
    assert before > 0.3
    assert after < 0.05
    last = steps[-1][0]
    assert means(np.abs(last.source - frame))[last.whole].mean() < 2


def test_a_step_goes_where_the_picture_was_taken_from() -> None:
    for free, aside in ((6, _ASIDE), (8, _ASIDE), (8, _SLANTED)):
        transform = _SHIFT @ aside
        for _ in range(4):
            step = Pull.of(Layers(transform, _PICTURE, moved(_SHIFT)).laid()).step(free)
            assert step is not None
            transform = np.linalg.inv(step) @ transform
        assert corner_miss(transform) < 0.25


def test_steps_end_where_nothing_pulls_and_before_they_lead_far_away() -> None:
    other = resized(gray(photo(2)), 256)
    assert len(list(Layers(np.eye(3), _PICTURE, np.full_like(other, 90)).steps())) == 1
    for laid, _ in Layers(np.eye(3), _PICTURE, other).steps():
        assert laid.whole.reshape(15, 21)[2:-2, 2:-2].all()


def test_blocks_lie_in_the_middle_and_leave_the_edge_out() -> None:
    assert Grid.of((192, 256)) == (15, 21, 6, 2)
    assert Grid.of((15, 256)).rows == 0
    x, y = Grid.of((40, 28)).middles
    assert (x.tolist(), y.tolist()) == ([7.5, 19.5] * 3, [7.5, 7.5, 19.5, 19.5, 31.5, 31.5])
    image = np.arange(40 * 28, dtype=np.float32).reshape(40, 28)
    assert means(image)[3] == pytest.approx(image[14:26, 14:26].mean())
    assert len(means(np.zeros((9, 9), np.float32))) == 0


@pytest.mark.parametrize("flip", [False, True])
def test_the_sharper_of_two_is_blurred(flip: bool) -> None:
    soft = np.asarray(cv2.GaussianBlur(_PICTURE, (0, 0), 1.7), np.uint8)
    both = laid(soft, _PICTURE) if flip else laid(_PICTURE, soft)
    same = both.same_sharpness()
    apart = [np.abs(one.source - one.frame).mean() for one in (both, same)]
    assert apart[1] < 0.25 * apart[0]
    kept = (same.source, both.source) if flip else (same.frame, both.frame)
    assert kept[0] is kept[1]
    assert laid(_PICTURE, _PICTURE).same_sharpness().source.tolist() == _PICTURE.tolist()


def slips(frame: U8) -> F64:
    one = laid(_PICTURE, frame)
    pull = Pull.of(one)
    return pull.slips(one.whole & (pull.frame > 2.5))


def test_slips_are_how_far_blocks_lie_beside_their_places() -> None:
    there, aside = (slips(moved(np.array([[1.0, 0, by], [0, 1, 0], [0, 0, 1]]))) for by in (0.0, 0.7))
    assert len(aside) > 50
    assert np.median(there) < 0.05
    assert np.median(aside) == pytest.approx(0.7, abs=0.15)
    assert not len(slips(np.full_like(_PICTURE, 9)))


def test_noise_moves_blocks_less_than_parallax() -> None:
    noise = np.random.default_rng(1).normal(0, 12, _PICTURE.shape)
    noisy = (_PICTURE + noise).clip(0, 255).astype(np.uint8)
    deep = cv2.remap(_PICTURE, *_bent(1.0), cv2.INTER_CUBIC)
    assert np.median(slips(noisy)) < 0.15 < 0.25 < np.median(slips(np.asarray(deep, np.uint8)))


def _bent(pixels: float) -> tuple[F32, F32]:
    """Where a picture is seen that moves by up to so many pixels, near more than far."""
    y, x = np.indices(_PICTURE.shape)
    return np.asarray(x + pixels * np.sin(y / 30) * np.cos(x / 40), np.float32), np.asarray(y, np.float32)
