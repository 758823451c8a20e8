"""Encoded pictures opened, and what is shown of them: upright, sRGB, 8 bit. Whatever hashes or compares pixels sees them so.

Needs trust in the bytes or a process that may die; `matcher.decode` has limits for both.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Final

import numpy as np
from PIL import ExifTags, Image

from matcher.pixels import U8

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS: Final = range(5, 9)
_STRIPE: Final = 64


@contextmanager
def opened(data: bytes, kinds: list[str]) -> Iterator[Image.Image]:
    """The picture, its header read; `kinds`: Pillow's names of the formats that are tried. Raises whatever Pillow does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.MAX_IMAGE_PIXELS = None  # who opens it checks its size by a limit of ours
        with Image.open(BytesIO(data), formats=kinds) as image:
            yield image


def orientation(image: Image.Image) -> int:
    """How EXIF says that the picture is to be turned, 1 to 8; damaged EXIF says nothing."""
    try:
        said = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF does not make the pixels worse
        return 1
    return said if said in _TURNS else 1


def shown(image: Image.Image, mode: str = "RGB", side: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The upright picture as RGB, or as L where `mode` is that and it came so; and (width, height) of the original, upright.

    With `side` a JPEG may come smaller, not below `side`. Transparent pixels are shown on white; of an animation the first frame.
    """
    width, height = image.size
    if side is not None:  # of what is asked for, the shorter side must not keep the scale larger
        image.draft(mode, (side, 1) if width >= height else (1, side))
    image.load()
    turn = orientation(image)
    upright = image.transpose(_TURNS[turn]) if turn in _TURNS else image
    gray = mode == upright.mode == "L" and "transparency" not in upright.info
    return upright if gray else _rgb(upright), (height, width) if turn in _QUARTER_TURNS else (width, height)


def pixels(image: Image.Image) -> U8:
    """An RGB picture as an array, H x W x 3, by stripes: at once it would take two more copies, and twice the time."""
    out = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _STRIPE):
        rows = slice(top, min(top + _STRIPE, image.height))
        out[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
    return out


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.float64)
        return Image.fromarray((deep / 257).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
