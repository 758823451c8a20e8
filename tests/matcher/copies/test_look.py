from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest

from matcher.copies.features import MIRROR, Fingerprint, fingerprint_gray, registered_gray
from matcher.copies.look import chance, look
from matcher.pixels import U8, gray, gray_from_jpeg, jpeg, resized
from tests.matcher.flat import emblem, page, ramp, sky
from tests.matcher.pictures import photo, resize

FLAT = [*map(sky, range(20)), *map(ramp, range(0, 360, 30)), *map(emblem, range(20)), *map(page, range(8))]
TEXTURED = [resized(gray(photo(seed)), 512) for seed in range(12)]
ATTACKS: dict[str, Callable[[U8], Any]] = {
    "jpeg": lambda image: gray_from_jpeg(jpeg(image, 10)),
    "small": lambda image: resized(image, 96),
    "stretched": lambda image: cv2.resize(image, (640, 400), interpolation=cv2.INTER_AREA),
    "bright": lambda image: np.clip(image * 1.15 + 10.0, 0, 255).astype(np.uint8),
    "pale": lambda image: (image * 0.6 + 50).astype(np.uint8),
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), 3),
    "noisy": lambda image: np.clip(image + np.random.default_rng(5).normal(0, 12, image.shape), 0, 255).astype(np.uint8),
    "framed": lambda image: np.pad(image, ((20, 20), (30, 30))),
}


def distance(one: U8, other: U8) -> float:
    return float(np.linalg.norm(one.astype(np.float32) - other.astype(np.float32)))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_plain_copy_looks_most_like_its_original(attack: str) -> None:
    pictures = [*FLAT, *TEXTURED]
    known = [look(picture) for picture in pictures]
    copies = [look(ATTACKS[attack](picture)) for picture in pictures]
    nearest = [int(np.argmin([distance(copy, one) for one in known])) for copy in copies]
    assert sum(found == at for at, found in enumerate(nearest)) >= 0.95 * len(pictures)


def test_flat_pictures_look_different_from_each_other() -> None:
    known = [look(picture) for picture in FLAT]
    apart = [distance(one, other) for at, one in enumerate(known) for other in known[:at]]
    again = [distance(look(ATTACKS["small"](picture)), one) for picture, one in zip(FLAT, known, strict=True)]
    assert np.quantile(again, 0.95) < np.quantile(apart, 0.005)


def test_the_mirror_of_a_look_is_the_look_of_the_mirror() -> None:
    for picture in (TEXTURED[0], FLAT[0], FLAT[-1]):
        flipped = look(np.ascontiguousarray(picture[:, ::-1]))
        assert distance(look(picture)[MIRROR], flipped) < 12
        assert distance(look(picture), flipped) > 50


@pytest.mark.parametrize("value", [0, 128, 255])
def test_one_colour_has_no_look_however_it_is_kept(value: int) -> None:
    plain = np.full((300, 400), value, np.uint8)
    for picture in (plain, ATTACKS["jpeg"](plain), ATTACKS["noisy"](plain), ATTACKS["framed"](plain)):
        assert not look(picture).size


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 3), (2000, 90)])
def test_any_shape_has_a_look_or_none(shape: tuple[int, int]) -> None:
    assert len(look(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))) in (0, 128)


def test_fingerprints_keep_it() -> None:
    picture = gray(photo(3))
    for print_ in (fingerprint_gray(picture), registered_gray(picture)):
        assert distance(Fingerprint.from_bytes(print_.to_bytes()).look, look(picture)) < 12
    assert distance(fingerprint_gray(ATTACKS["jpeg"](gray(resize(photo(3), 0.5)))).look, look(picture)) < 50


def test_the_chance_of_a_likeness_is_what_unrelated_pictures_show() -> None:
    assert chance(0) == chance(70) == 1e-6
    assert chance(724) == 1
    assert [chance(distance) for distance in (117, 140, 167, 206)] == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1], rel=0.6)
