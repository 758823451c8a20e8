"""Who has one marked copy and knows the algorithm: denoising, compression, bending, other marks over it, what shows of its mark."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import cv2
import numpy as np

from bench.copies import attacks
from bench.copies.sets import Picture
from bench.watermark.attacks import blurred
from bench.watermark.methods import key_of
from bench.watermark.security.case import Case, Outcome, case
from bench.watermark.security.estimate import shown, taken_off
from matcher.pixels import U8
from matcher.watermark.embed import add, draw, embed

_MARKS: Final = (1, 3, 10)
_BENT: Final = (2, 4, 8)
"""Pixels."""
_TIMES: Final = (1, 1.5, 2, 3, 4)
_WAVES: Final = 3


def attack(picture: Picture) -> list[Outcome]:
    owned = case(picture)
    return [
        *(owned.outcome(what, do(owned.marked)) for what, do in DENOISERS.items()),
        *(owned.outcome(what, do(owned.marked)) for what, do in _COMPRESSION.items()),
        *(owned.outcome(f"bent by up to {pixels} pixels", bent(owned.marked, pixels, owned.name), comparable=False) for pixels in _BENT),
        owned.outcome("printed and scanned (simulated)", attacks.ATTACKS["print_scan"](owned.marked, owned.name), comparable=False),
        *_marked_over(owned),
        *(owned.outcome(f"what shows of its mark, taken off {t:g} times", taken_off(owned.marked, shown(owned.marked), t)) for t in _TIMES),
    ]


def _marked_over(owned: Case) -> list[Outcome]:
    left, outcomes = owned.marked, []
    for number in range(1, max(_MARKS) + 1):
        left = embed(left, key=key_of(f"{number} over {owned.name}"))[0]
        if number in _MARKS:
            outcomes.append(owned.outcome(f"{number} other mark{'s' * (number > 1)} over it", left))
    strong = add(owned.marked, 4 * draw(owned.marked, key=key_of(f"strong over {owned.name}"))[0])
    return [*outcomes, owned.outcome("another mark over it, 4 times as strong", strong)]


def bent(rgb: U8, pixels: float, name: str) -> U8:
    """Moved by a smooth random field, `pixels` at most."""
    height, width = rgb.shape[:2]
    draw = np.random.default_rng(zlib.crc32(f"bent/{name}".encode()))
    coarse = draw.uniform(-1, 1, (_WAVES, _WAVES, 2)).astype(np.float32)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    field *= pixels / np.abs(field).max()
    y, x = np.mgrid[:height, :width].astype(np.float32)
    moved = cv2.remap(rgb, x + field[..., 0], y + field[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.uint8)


def wavelet(rgb: U8, deviation: float) -> U8:
    """BayesShrink (Chang, Yu and Vetterli 2000) for noise of that deviation, in gray levels."""
    from skimage.restoration import denoise_wavelet

    made = denoise_wavelet(rgb / 255.0, sigma=deviation / 255, channel_axis=-1, convert2ycbcr=True, rescale_sigma=True)
    return np.asarray(np.rint(255 * np.clip(made, 0, 1)), np.uint8)


def _non_local_means(rgb: U8, strength: float) -> U8:
    return np.asarray(cv2.fastNlMeansDenoisingColored(rgb, None, strength, strength, 7, 21), np.uint8)


def _median(rgb: U8, side: int) -> U8:
    return np.asarray(cv2.medianBlur(rgb, side), np.uint8)


def _bilateral(rgb: U8, strength: float) -> U8:
    return np.asarray(cv2.bilateralFilter(rgb, 9, strength, 4), np.uint8)


def _compressed(rgb: U8, kind: str, quality: int) -> U8:
    return attacks.compressed(rgb, np.random.default_rng(0), kind=kind, quality=quality)


def _blurred(rgb: U8, deviation: float) -> U8:
    return blurred(rgb, np.random.default_rng(0), deviation=deviation)


DENOISERS: Final[Mapping[str, Callable[[U8], U8]]] = {
    "median 3 x 3": partial(_median, side=3),
    "median 5 x 5": partial(_median, side=5),
    "median 9 x 9": partial(_median, side=9),
    "bilateral, 30 levels": partial(_bilateral, strength=30),
    "bilateral, 80 levels": partial(_bilateral, strength=80),
    "non-local means, 5": partial(_non_local_means, strength=5),
    "non-local means, 12": partial(_non_local_means, strength=12),
    "wavelets, BayesShrink for 5 levels": partial(wavelet, deviation=5),
    "wavelets, BayesShrink for 15 levels": partial(wavelet, deviation=15),
    "blurred by 4 pixels": partial(_blurred, deviation=4),
}
_COMPRESSION: Final[Mapping[str, Callable[[U8], U8]]] = {
    "JPEG 10": partial(_compressed, kind="JPEG", quality=10),
    "JPEG 5": partial(_compressed, kind="JPEG", quality=5),
    "JPEG 2": partial(_compressed, kind="JPEG", quality=2),
    "WebP 5": partial(_compressed, kind="WEBP", quality=5),
    "AVIF 10": partial(_compressed, kind="AVIF", quality=10),
}
