from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcher.watermark.keys import BAND, GRID, band, coefficients, grid, secret_key

_KEY = bytes(range(32))
_SIDES = st.integers(64, 20_000)


@given(_SIDES, _SIDES)
def test_the_grid_has_the_shape_of_the_picture_and_shows_the_whole_band(width: int, height: int) -> None:
    across, down = grid(width, height)
    assert across % 8 == down % 8 == 0
    assert max(across, down) <= GRID
    if min(across, down) > 100:
        assert across / down == pytest.approx(width / height, rel=0.06)
    assert BAND[1] * max(across, down) / max(width, height) < 0.35  # cycles per pixel of the picture


@pytest.mark.parametrize("size", [(1024, 768), (104, 104), (64, 8), (8, 1024)])
def test_coefficients_make_an_image_and_come_back(size: tuple[int, int]) -> None:
    where = band(size)
    drawn = coefficients(_KEY, size)
    image = where.image(drawn)
    assert image.shape == (size[1], size[0])
    assert np.allclose(where.of(image), drawn, atol=1e-3)


def test_coefficients_are_independent_of_each_other_and_of_the_size() -> None:
    drawn = coefficients(_KEY, (1024, 768))
    count = len(drawn)
    numbers = np.stack([drawn.real, drawn.imag])
    assert np.all(np.abs(numbers.mean(axis=1)) < 4 / np.sqrt(count))
    assert np.all(np.abs(numbers.var(axis=1) - 1) < 4 * np.sqrt(2 / count))
    assert abs(float(np.mean(drawn.real * drawn.imag))) < 4 / np.sqrt(count)
    assert abs(float(np.mean(drawn.real[1:] * drawn.real[:-1]))) < 4 / np.sqrt(count)
    assert abs(complex(drawn[0]) - complex(coefficients(_KEY, (768, 1024))[0])) > 1e-3


def test_a_secret_makes_another_key() -> None:
    # written down: what was marked with a passphrase is found by every later version
    assert secret_key(_KEY, "Grüße").hex() == _WITH_SECRET
    assert secret_key(_KEY, "Gru\u0308ße").hex() == _WITH_SECRET
    assert secret_key(bytes(32), "Grüße").hex() != _WITH_SECRET
    with pytest.raises(ValueError, match="at least one character"):
        secret_key(_KEY, "")


_WITH_SECRET = "b30233efe768531fa918a24eeb59963d4461c3413fad5b25eb7c4c7cd86bbb36"
