from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from matcher.copies.features import fingerprint
from matcher.copies.geometry import MODELS
from matcher.copies.verdict import judge
from matcher.pixels import U8
from tests.matcher.pictures import captioned, crop, dialog, jpeg, mirror, photo, resize, slanted

_EDITS: dict[str, Callable[[U8], U8]] = {
    "the same": lambda p: p,
    "JPEG 40": lambda p: jpeg(p, 40),
    "a quarter of the size": lambda p: resize(p, 0.27),
    "twice the size": lambda p: resize(p, 2),
    "half of it": lambda p: crop(p, 0.1, 0.2, 0.7),
    "a quarter of it": lambda p: crop(p, 0.4, 0.3, 0.5),
    "mirrored": mirror,
    "with a caption": captioned,
    "cropped, shrunk, mirrored, JPEG 50": lambda p: jpeg(mirror(resize(crop(p, 0.2, 0.2, 0.7), 0.5)), 50),
    "brighter": lambda p: (p * 0.7 + 60).astype(np.uint8),
}


@pytest.mark.parametrize("name", _EDITS)
def test_edited_copies_are_copies(name: str) -> None:
    verdict = judge(fingerprint(photo(1)), fingerprint(_EDITS[name](photo(1))))
    assert verdict is not None
    assert verdict.name == "copy"
    assert verdict.mirrored == ("mirrored" in name)
    assert verdict.score > 5


def test_the_transform_is_in_the_originals_pixels() -> None:
    query = mirror(resize(crop(photo(1), 0.25, 0.2, 0.5), 0.8))
    verdict = judge(fingerprint(photo(1)), fingerprint(query))
    assert verdict is not None
    # the crop's left top corner lands at the mirrored query's right top
    corner = verdict.transform @ [0.25 * 600, 0.2 * 450, 1]
    assert np.allclose(corner[:2] / corner[2], [query.shape[1] - 1, 0], atol=3)
    assert verdict.overlap == pytest.approx(0.25, abs=0.05)


def test_a_copy_at_a_slant_is_a_copy_when_affine_is_asked() -> None:
    verdict = judge(fingerprint(photo(1)), fingerprint(jpeg(slanted(photo(1))[0], 60)), "affine")
    assert verdict is not None
    assert verdict.name == "copy"
    corner = verdict.transform @ [600, 0, 1]
    assert np.allclose(corner[:2] / corner[2], [0.9 * 600, 0], atol=2)


def test_a_noisy_pale_print_is_a_copy() -> None:
    draw = np.random.default_rng(1)
    y, x = np.mgrid[-1:1:450j, -1:1:600j]
    shade = (1 - 0.35 * (x * x + y * y))[..., None]
    scan = ((photo(1) * 0.6 + 50) * shade + draw.normal(0, 9, photo(1).shape)).clip(0, 255).astype(np.uint8)
    verdict = judge(fingerprint(photo(1)), fingerprint(jpeg(scan, 50)), "affine")
    assert verdict is not None
    assert verdict.name == "copy"


def test_other_pictures_are_none() -> None:
    assert all(judge(fingerprint(photo(seed)), fingerprint(photo(1))) is None for seed in range(50, 60))


def test_two_windows_with_the_same_buttons_are_not_copies() -> None:
    words = (
        "brush opacity mode jitter size angle",
        "layer channel path mask alpha group",
        "export quality comment smooth dct scan",
        "brush opacity mode jitter size scale",
    )
    prints = [fingerprint(dialog(w)) for w in words]
    for i, a in enumerate(prints):
        for j, b in enumerate(prints):
            verdict = judge(a, b)
            assert (verdict is not None and verdict.name == "copy") == (i == j)


def test_a_window_is_found_after_shrinking_and_jpeg() -> None:
    window = dialog("brush opacity mode jitter size angle")
    verdict = judge(fingerprint(window), fingerprint(jpeg(resize(window, 0.5), 50)))
    assert verdict is not None
    assert verdict.name == "copy"


def test_a_scene_seen_from_aside_is_no_copy() -> None:
    """Two depths that move against each other, as walking past a fence does."""
    near, far = photo(1), photo(2)
    fence = (np.arange(600) // 50 % 2).astype(bool)

    def view(shift: int) -> U8:
        out = far.copy()
        stripes = np.roll(fence, shift)
        out[:, stripes] = np.roll(near, shift, axis=1)[:, stripes]
        return out

    for model in MODELS:
        verdict = judge(fingerprint(view(0)), fingerprint(view(18)), model)
        assert verdict is not None
        assert verdict.name == "same scene"


def test_a_scene_with_depth_seen_from_a_step_aside_is_no_copy() -> None:
    """What is near moves more than what is far, smoothly: no homography brings both into place."""
    y, x = np.indices((450, 600), np.float32)
    depth = 8 * np.sin(x / 70) * np.cos(y / 60)
    aside = np.asarray(cv2.remap(photo(1), np.asarray(x + depth, np.float32), y, cv2.INTER_CUBIC), np.uint8)
    for model in MODELS:
        verdict = judge(fingerprint(photo(1)), fingerprint(aside), model)
        assert verdict is not None
        assert verdict.name == "same scene"
        assert verdict.likeness.slip > 0.3
