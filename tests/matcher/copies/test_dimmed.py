from __future__ import annotations

import numpy as np
import pytest

from matcher.copies.dimmed import undimmed
from matcher.pixels import U8
from tests.matcher.flat import dimmed, emblem, page, ramp


@pytest.mark.parametrize("fall", [0.15, 0.27, 0.38])
@pytest.mark.parametrize("image", [emblem(1), emblem(2, "sol"), page(1)])
def test_dark_corners_are_undone(image: U8, fall: float) -> None:
    lit = undimmed(dimmed(image, fall))
    assert lit is not None
    inner = slice(30, -30)  # in the very corners little is left of the light
    assert np.abs(lit.astype(float) - image)[inner, inner].mean() < 6


@pytest.mark.parametrize("image", [emblem(1), page(1), ramp(30), np.full((60, 80), 100, np.uint8), np.zeros((2, 3), np.uint8)])
def test_what_has_none_is_left_alone(image: U8) -> None:
    assert undimmed(image) is None
