from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher.copies.correspondences import correspond
from matcher.copies.features import SIDE, Fingerprint, fingerprint
from matcher.copies.geometry import MODELS, Geometry, Model, agree, fit, log_nfa, residuals
from matcher.pixels import fit as fit_size
from matcher.pixels import scaling
from tests.matcher.pictures import crop, photo, slanted


def locate(registered: Fingerprint, query: Fingerprint, model: Model, tests: int = 1) -> Geometry | None:
    return agree(correspond(registered, query)[0], registered.small, query.small, model, tests)


_CORNERS = np.array([[10.0, 20], [300, 25], [280, 260], [15, 240], [150, 100], [60, 180]])


@pytest.mark.parametrize("model", MODELS)
def test_a_crop_is_located_in_small_pixels(model: Model) -> None:
    geometry = locate(fingerprint(photo(1)), fingerprint(crop(photo(1), 0.25, 0.25, 0.5)), model)
    assert geometry is not None
    assert geometry.score > 10
    # half of each side at the same small size: everything is twice as large
    assert np.allclose(geometry.transform[:2, :2], 2 * np.eye(2), atol=0.05)


@pytest.mark.parametrize("model", MODELS)
def test_other_pictures_are_not_located(model: Model) -> None:
    query = fingerprint(photo(1))
    for seed in range(20, 32):
        geometry = locate(fingerprint(photo(seed)), query, model, tests=24)
        assert geometry is None or geometry.score < 1


def test_scale_has_no_rotation_and_affine_has() -> None:
    turned = np.ascontiguousarray(np.rot90(photo(1)))
    assert locate(fingerprint(photo(1)), fingerprint(turned), "scale") is None
    assert locate(fingerprint(photo(1)), fingerprint(turned), "affine") is not None


def test_a_copy_at_a_slant_is_placed_by_a_homography_when_affine_is_asked() -> None:
    query, matrix = slanted(photo(1))
    shrink = scaling((600, 450), fit_size(600, 450, SIDE))
    truth = shrink @ matrix @ np.linalg.inv(shrink)
    geometry, plain = (locate(fingerprint(photo(1)), fingerprint(q), "affine") for q in (query, photo(1)))
    assert geometry is not None
    assert plain is not None
    where = truth @ np.column_stack([_CORNERS / 2, np.ones(6)]).T
    assert residuals(geometry.transform / geometry.transform[2, 2], _CORNERS / 2, (where[:2] / where[2]).T).max() < 1
    assert geometry.transform[2, :2].any()
    assert plain.transform[2].tolist() == [0, 0, 1]
    assert geometry.inliers < plain.inliers


@given(sx=st.floats(0.2, 5), sy=st.floats(0.2, 5), tx=st.floats(-500, 500), ty=st.floats(-500, 500))
def test_fit_finds_scale_and_shift(sx: float, sy: float, tx: float, ty: float) -> None:
    truth = np.array([[sx, 0, tx], [0, sy, ty], [0, 0, 1]])
    target = _CORNERS * [sx, sy] + [tx, ty]
    for model in ("scale", "affine", "perspective"):
        found = fit(_CORNERS, target, model)
        assert found is not None
        assert residuals(found / found[2, 2], _CORNERS, target).max() < 1e-2
    found = fit(_CORNERS, target, "scale")
    assert found is not None
    assert np.allclose(found, truth, atol=1e-6)


def test_points_on_a_spot_fix_nothing() -> None:
    assert fit(np.ones((9, 2)), np.ones((9, 2)), "scale") is None
    assert fit(np.ones((9, 2)), np.ones((9, 2)), "affine") is None


@settings(max_examples=50)
@given(count=st.integers(5, 300), free=st.integers(2, 4), alpha=st.floats(1e-5, 0.4))
def test_more_inliers_are_never_more_likely_by_chance(count: int, free: int, alpha: float) -> None:
    from math import log10

    expected = int(alpha * count) + free + 1
    values = [log_nfa(count, k, free, alpha) for k in range(expected, count)]
    assert all(b <= a + 1e-9 for a, b in zip(values[len(values) // 2 :], values[len(values) // 2 + 1 :], strict=False))
    assert log_nfa(count, free, free, alpha) == float("inf")
    assert log_nfa(count, count, free, alpha) <= log10(count) + free * log10(count) + (count - free) * log10(alpha) + 1e-6
