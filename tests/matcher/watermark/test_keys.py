from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcher.watermark.keys import BAND, GRID, band, coefficients, grid, halved, secret_key

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


@pytest.mark.parametrize("size", [(1024, 768), (104, 104), (1024, 683)])
def test_half_the_pixels_show_the_same_coefficients(size: tuple[int, int]) -> None:
    where, (width, height) = band(size), halved(size)
    drawn = coefficients(_KEY, size)
    whole = np.fft.fft2(where.image(drawn))
    rows, columns = np.fft.fftfreq(size[1], 1 / size[1]).astype(int), np.fft.fftfreq(size[0], 1 / size[0]).astype(int)
    y, x = (np.arange(height) + 0.5) * size[1] / height - 0.5, (np.arange(width) + 0.5) * size[0] / width - 0.5
    down, right = (np.exp(2j * np.pi * np.outer(at, k) / side) for at, k, side in ((y, rows, size[1]), (x, columns, size[0])))
    larger = np.real(down @ whole @ right.T) / whole.size  # sampled in between, exactly
    seen = where.of(np.asarray(larger, np.float32)) * np.float32(size[0] * size[1] / (width * height))
    assert np.allclose(seen, drawn, atol=2e-2)


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
