"""A second suite, that nothing is tuned to: the image augmentations of AugLy 1.0 (Papakipos and Bitton 2022), with its own default
strengths where these do something, and two chains of several.

Two of its functions fail with today's Pillow and NumPy; they are done here after their documentation, and their names say so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.copies import recall
from bench.copies.run import Run
from bench.copies.sets import sample
from matcher.pixels import U8

Augment = Callable[[Image.Image], Image.Image]
_SEED: Final = 42


def augly(name: str, rgb: U8, picture: str) -> U8:
    """The picture under that augmentation; what became transparent is shown on white."""
    image = _suite()[name](Image.fromarray(rgb)).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def names() -> list[str]:
    return list(_suite())


@lru_cache
def _suite() -> Mapping[str, Augment]:
    import augly.image as augly

    def use(function: str, **options: Any) -> Augment:
        return partial(getattr(augly, function), **options)

    suite = {
        "blur": use("blur"),
        "brightness": use("brightness", factor=1.6),
        "change_aspect_ratio": use("change_aspect_ratio"),
        "clip_image_size": use("clip_image_size", max_resolution=100_000),
        "color_jitter": use("color_jitter", brightness_factor=1.4, contrast_factor=0.7, saturation_factor=1.6),
        "contrast": use("contrast", factor=0.6),
        "crop": use("crop"),
        "encoding_quality": use("encoding_quality"),
        "grayscale": use("grayscale"),
        "hflip": use("hflip"),
        "meme_format (after its documentation)": _meme_format,
        "opacity": use("opacity", level=0.5),
        "overlay_emoji": use("overlay_emoji"),
        "overlay_image": use("overlay_image", overlay=_other("coffee.png"), overlay_size=0.6),
        "overlay_onto_background_image": use(
            "overlay_onto_background_image", background_image=_other("rocket.jpg"), overlay_size=0.6, x_pos=0.2, y_pos=0.2
        ),
        "overlay_onto_screenshot": use("overlay_onto_screenshot"),
        "overlay_stripes": use("overlay_stripes"),
        "overlay_text": use("overlay_text"),
        "pad": use("pad"),
        "pad_square": use("pad_square"),
        "perspective_transform (after its documentation)": _perspective_transform,
        "pixelization": use("pixelization", ratio=0.3),
        "random_noise": use("random_noise"),
        "resize": use("resize", width=300, height=300),
        "rotate": use("rotate"),
        "saturation": use("saturation", factor=2.0),
        "scale": use("scale"),
        "sharpen": use("sharpen", factor=3.0),
        "shuffle_pixels": use("shuffle_pixels", factor=0.1),
        "skew": use("skew"),
        "vflip": use("vflip"),
    }
    chains = {
        "hflip, crop, overlay_text, encoding_quality": ("hflip", "crop", "overlay_text", "encoding_quality"),
        "rotate, color_jitter, overlay_emoji, scale": ("rotate", "color_jitter", "overlay_emoji", "scale"),
    }
    return suite | {name: partial(_chain, tuple(suite[step] for step in steps)) for name, steps in chains.items()}


def _chain(steps: tuple[Augment, ...], image: Image.Image) -> Image.Image:
    for step in steps:
        image = step(image).convert("RGB")
    return image


def _other(name: str) -> Image.Image:
    return Image.fromarray(sample(name))


def _meme_format(image: Image.Image) -> Image.Image:
    """A white bar 250 pixels high above it, with the text LOL as large as fits."""
    meme = Image.new("RGB", (image.width, image.height + 250), "white")
    meme.paste(image, (0, 250))
    font = ImageFont.load_default(min(200, image.width / 3))
    ImageDraw.Draw(meme).text((image.width / 2, 125), "LOL", "black", font, anchor="mm")
    return meme


def _perspective_transform(image: Image.Image) -> Image.Image:
    """Each corner moved by a normal deviate of 50 pixels along each axis; what is beside it is black."""
    width, height = image.size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + np.random.default_rng(_SEED).normal(0, 50, (4, 2)).astype(np.float32)
    return Image.fromarray(np.asarray(cv2.warpPerspective(np.asarray(image), cv2.getPerspectiveTransform(corners, moved), (width, height))))


def run(run: Run) -> dict[str, Any]:
    """Like the own suite, on half as many pictures."""
    sampled = replace(run, sample=run.sample or len(run.sets.registered) // 2)
    return recall.suite(sampled, augly, names()[::4] if run.quick else names())


def plot(result: Mapping[str, Any], folder: Path) -> None:
    recall.plot(result, folder, "copies-augly.svg")


markdown = recall.markdown
