"""What is done to marked pictures before they are looked at: 42 attacks, and two extremes that are counted apart.

The strengths are those that the literature on robust marking uses, up to where a picture is no longer worth taking. Steps and their seeds
are those of `bench.copies.attacks`: what is random is drawn from the attack's and the picture's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageEnhance, ImageFilter

from bench.copies.attacks import (
    Attack,
    Step,
    captioned,
    compressed,
    covered,
    cropped,
    in_gray,
    mirrored,
    noisy,
    on_page,
    resized,
    rotated,
    tilted,
    with_emoji,
)
from matcher.pixels import U8


def enhanced(rgb: U8, draw: Generator, *, what: str, by: float) -> U8:
    """`what` is an enhancement of Pillow: Brightness, Contrast, Color."""
    return np.asarray(getattr(ImageEnhance, what)(Image.fromarray(rgb)).enhance(by))


def gamma(rgb: U8, draw: Generator, *, power: float) -> U8:
    return np.asarray(np.rint(255 * (rgb / 255.0) ** power), np.uint8)


def blurred(rgb: U8, draw: Generator, *, deviation: float) -> U8:
    """Gaussian, its deviation in pixels."""
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(deviation)))


def sharpened(rgb: U8, draw: Generator) -> U8:
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.UnsharpMask(2, 150, 0)))


def _jpeg(quality: int) -> Step:
    return partial(compressed, kind="JPEG", quality=quality)


def _enhanced(what: str, by: float) -> Step:
    return partial(enhanced, what=what, by=by)


_POSTED: Final = (partial(resized, side=1080), _jpeg(71))

_ATTACKS: Final = (
    *(Attack(f"jpeg_{quality}", (_jpeg(quality),)) for quality in (90, 70, 50, 30, 20, 10)),
    Attack("webp_50", (partial(compressed, kind="WEBP", quality=50),)),
    *(Attack(f"resize_{share}", (partial(resized, factor=share / 100),)) for share in (75, 50, 25)),
    Attack("resize_400px", (partial(resized, side=400),)),
    *(Attack(f"crop_{share}", (partial(cropped, share=share / 100),)) for share in (75, 50, 25, 10)),
    *(Attack(f"rotate_{degrees}", (partial(rotated, degrees=degrees),), "affine") for degrees in (1, 5, 15, 45, 90)),
    Attack("perspective", (partial(tilted, share=0.12),), "perspective"),
    Attack("mirror", (mirrored,)),
    Attack("brighter", (_enhanced("Brightness", 1.4),)),
    Attack("darker", (_enhanced("Brightness", 0.6),)),
    Attack("more_contrast", (_enhanced("Contrast", 1.5),)),
    Attack("less_contrast", (_enhanced("Contrast", 0.6),)),
    Attack("gamma_0.7", (partial(gamma, power=0.7),)),
    Attack("gamma_1.4", (partial(gamma, power=1.4),)),
    Attack("saturation", (_enhanced("Color", 1.8),)),
    Attack("gray", (in_gray,)),
    *(Attack(f"blur_{deviation}", (partial(blurred, deviation=deviation),)) for deviation in (1, 2)),
    *(Attack(f"noise_{deviation}", (partial(noisy, deviation=deviation),)) for deviation in (5, 10)),
    Attack("sharpen", (sharpened,)),
    Attack("text", (captioned,)),
    Attack("emoji", (with_emoji,)),
    Attack("overlay_30", (partial(covered, share=0.3),)),
    Attack("page", (on_page,)),
    Attack("crop_50_resize_50_jpeg_50", (partial(cropped, share=0.5), partial(resized, factor=0.5), _jpeg(50))),
    Attack("crop_25_resize_50_jpeg_30", (partial(cropped, share=0.25), partial(resized, factor=0.5), _jpeg(30))),
    Attack("posted_twice", (*_POSTED, *_POSTED)),
)
_EXTREMES: Final = (
    Attack("crop_5", (partial(cropped, share=0.05),)),
    Attack("thumbnail_100px", (partial(resized, side=100),)),
)
ATTACKS: Final[Mapping[str, Attack]] = {attack.name: attack for attack in _ATTACKS}
EXTREMES: Final[Mapping[str, Attack]] = {attack.name: attack for attack in _EXTREMES}
