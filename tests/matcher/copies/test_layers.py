from __future__ import annotations

import cv2
import numpy as np
import pytest

from matcher.copies.layers import BLOCK, Laid, Layers, Pull
from matcher.pixels import F64, U8, gray, resized
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
    rows, columns = (side // BLOCK for side in _PICTURE.shape)
    whole = blocks.whole.reshape(rows, columns)
    assert not whole[:, 0].any()
    assert not whole[-1].any()
    assert whole[1:-1, 2:-1].all()
    textured = blocks.whole & (blocks.frame > 4)
    assert textured.sum() > 50
    assert blocks.ncc[textured].min() > 0.99
    assert np.allclose(blocks.source[textured], blocks.frame[textured], rtol=0.1)


def test_what_lies_a_little_beside_its_place_is_brought_there() -> None:
    near = _SHIFT @ np.array([[1.003, 0.003, 0.9], [-0.003, 0.997, -0.6], [0, 0, 1]])
    aligned = Layers(near, _PICTURE, moved(_SHIFT)).aligned()
    corners = np.array([[0, 0, 1], [255, 0, 1], [0, 191, 1], [255, 191, 1]], float)
    before, after = (np.abs(corners @ (transform - _SHIFT).T).max() for transform in (near, aligned.transform))
    assert before > 2
    assert after < 0.2


def test_what_is_far_away_stays_where_it_was() -> None:
    other = resized(gray(photo(2)), 256)
    for frame in (other, np.full_like(other, 90)):
        aligned = Layers(np.eye(3), _PICTURE, frame).aligned()
        assert np.abs(aligned.transform[:2, 2]).max() < 13


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


def test_slips_are_how_far_blocks_lie_beside_their_places() -> None:
    there, aside = (Pull.of(laid(_PICTURE, moved(np.array([[1.0, 0, by], [0, 1, 0], [0, 0, 1]])))).slips() for by in (0.0, 0.7))
    assert np.isfinite(aside).sum() > 50
    assert np.nanmedian(there) < 0.05
    assert np.nanmedian(aside) == pytest.approx(0.7, abs=0.15)
    assert np.isnan(Pull.of(laid(np.full_like(_PICTURE, 9), _PICTURE)).slips()).all()
