"""What is done to pictures that are taken: 32 attacks of the strengths that the literature uses, each a pure function of picture and name.

Strengths follow the image similarity challenge (Douze et al. 2021, arXiv:2106.09672) and AugLy (Papakipos and Bitton 2022,
arXiv:2201.06494). Pictures are uint8 sRGB, H x W x 3. What is random is drawn from the attack's and the picture's names: the same on every
machine, another for every picture.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from io import BytesIO
from math import cos, pi, radians, sin
from typing import Final, Literal

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from bench.copies.sets import COMPANY, sample
from matcher.pixels import U8

Needs = Literal["scale", "affine", "perspective"]
Step = Callable[[U8, Generator], U8]
_WORDS: Final = (
    "when you finally",
    "nobody:",
    "breaking news",
    "look at this",
    "and then it",
    "works at last",
    "every monday",
    "share if you agree",
)


@dataclass(frozen=True, slots=True)
class Attack:
    """`needs`: the smallest transform model that describes what it does to the registered pixels; mirroring needs none."""

    name: str
    steps: tuple[Step, ...]
    needs: Needs = "scale"

    def __call__(self, rgb: U8, picture: str) -> U8:
        """The attacked picture. `picture` names it: the seed of what is drawn."""
        draw = np.random.default_rng(zlib.crc32(f"{self.name}/{picture}".encode()))
        return reduce(lambda image, step: np.ascontiguousarray(step(image, draw)), self.steps, rgb)


def compressed(rgb: U8, draw: Generator, *, kind: str, quality: int) -> U8:
    """Written as a file of that kind and quality, and read again."""
    file = BytesIO()
    Image.fromarray(rgb).save(file, kind, quality=quality)
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


def resized(rgb: U8, draw: Generator, *, factor: float = 0, side: int = 0) -> U8:
    """By a factor, or to that many pixels on the longer side."""
    height, width = rgb.shape[:2]
    factor = factor or side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def cropped(rgb: U8, draw: Generator, *, share: float, corner: bool = False) -> U8:
    """A part with `share` of the area, at a random place or in a random corner, its aspect up to 1.3 away from the picture's."""
    height, width = rgb.shape[:2]
    aspect = 1.3 ** draw.uniform(-1, 1) if share < 0.6 else 1.0
    w = min(width, round(width * (share * aspect) ** 0.5))
    h = min(height, round(height * (share / aspect) ** 0.5))
    at_x, at_y = draw.integers(0, 2, 2) if corner else draw.uniform(0, 1, 2)
    x, y = round((width - w) * at_x), round((height - h) * at_y)
    return rgb[y : y + h, x : x + w]


def mirrored(rgb: U8, draw: Generator) -> U8:
    return rgb[:, ::-1]


def rotated(rgb: U8, draw: Generator, *, degrees: float) -> U8:
    """Either way round; up to 20 degrees the largest upright part is cut out, as phones do, above that the corners are white."""
    height, width = rgb.shape[:2]
    if degrees % 90 == 0:
        return np.rot90(rgb, round(degrees / 90))
    angle = degrees * draw.choice([-1, 1])
    turned = Image.fromarray(rgb).rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=(255, 255, 255))
    if degrees > 20:
        return np.asarray(turned)
    w, h = _largest_upright(width, height, radians(degrees))
    left, top = (turned.width - w) / 2, (turned.height - h) / 2
    return np.asarray(turned.crop((round(left), round(top), round(left + w), round(top + h))))


def _largest_upright(width: int, height: int, angle: float) -> tuple[float, float]:
    """Sides of the largest upright rectangle in a rotated one, for small angles (both pairs of its corners touch)."""
    s, c = sin(angle), cos(angle)
    if 2 * s * c * max(width, height) >= min(width, height):
        half = min(width, height) / 2
        return (half / s, half / c) if width >= height else (half / c, half / s)
    return (width * c - height * s) / (c * c - s * s), (height * c - width * s) / (c * c - s * s)


def stretched(rgb: U8, draw: Generator, *, aspect: float) -> U8:
    """Wider or higher by that factor."""
    height, width = rgb.shape[:2]
    size = (round(width * aspect), height) if draw.integers(2) else (width, round(height * aspect))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))


def tilted(rgb: U8, draw: Generator, *, share: float) -> U8:
    """Seen from the side: each corner moves inwards by up to `share` of the sides; what is beside it is black."""
    height, width = rgb.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * draw.uniform(0, share, (4, 2)) * (width, height)
    matrix = cv2.getPerspectiveTransform(corners, (corners + inwards).astype(np.float32))
    return np.asarray(cv2.warpPerspective(rgb, matrix, (width, height), flags=cv2.INTER_CUBIC), np.uint8)


def captioned(rgb: U8, draw: Generator) -> U8:
    """Two or three lines of text at random places, and a name in a corner."""
    image = Image.fromarray(rgb)
    pen = ImageDraw.Draw(image)
    size = max(10, round(min(image.size) / 9))
    for row in draw.choice(6, 3, replace=False):
        color = tuple(int(c) for c in draw.integers(0, 256, 3))
        pen.text(
            (draw.uniform(0, 0.3) * image.width, image.height * row / 6),
            _words(draw),
            color,
            _font(size),
            stroke_width=size // 20,
            stroke_fill="black",
        )
    pen.rectangle((image.width - 5 * size, image.height - 1.4 * size, image.width, image.height), fill=(200, 20, 30))
    pen.text((image.width - 4.7 * size, image.height - 1.3 * size), "NEWS 24", "white", _font(size))
    return np.asarray(image)


def covered(rgb: U8, draw: Generator, *, share: float) -> U8:
    """An opaque rectangle or ellipse over `share` of the area, with another picture in it."""
    height, width = rgb.shape[:2]
    ellipse = bool(draw.integers(2))
    side = (share * (4 / pi if ellipse else 1.0)) ** 0.5
    w, h = round(width * side), round(height * side)
    mask = Image.new("L", (w, h), 0 if ellipse else 255)
    ImageDraw.Draw(mask).ellipse((0, 0, w - 1, h - 1), fill=255)
    image = Image.fromarray(rgb)
    image.paste(_company(draw, w, h), (int(draw.integers(0, width - w + 1)), int(draw.integers(0, height - h + 1))), mask)
    return np.asarray(image)


def as_meme(rgb: U8, draw: Generator) -> U8:
    """A white bar above, a black one below, text in both."""
    height, width = rgb.shape[:2]
    bar = max(24, height // 5)
    image = Image.new("RGB", (width, height + 2 * bar), "white")
    image.paste(Image.fromarray(rgb), (0, bar))
    pen, font = ImageDraw.Draw(image), _font(bar * 0.42)
    pen.rectangle((0, height + bar, width, height + 2 * bar), fill="black")
    pen.text((width / 2, bar / 2), _words(draw).upper(), "black", font, anchor="mm")
    pen.text((width / 2, height + 1.5 * bar), _words(draw).upper(), "white", font, anchor="mm")
    return np.asarray(image)


def framed(rgb: U8, draw: Generator) -> U8:
    """A border of one colour, 6 to 15 % wide on each side."""
    color = [int(c) for c in draw.integers(0, 256, 3)]
    top, bottom, left, right = (round(draw.uniform(0.06, 0.15) * max(rgb.shape[:2])) for _ in range(4))
    return np.asarray(cv2.copyMakeBorder(rgb, top, bottom, left, right, cv2.BORDER_CONSTANT, value=color), np.uint8)


def on_page(rgb: U8, draw: Generator) -> U8:
    """A screenshot of a page that shows it at about a third of the area, between a title bar, text and buttons."""
    height, width = rgb.shape[:2]
    w, h = 1280, 800
    scale = min(0.62 * w / width, 0.72 * h / height)
    shown = Image.fromarray(rgb).resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BILINEAR)
    page = Image.new("RGB", (w, h), (250, 250, 250))
    pen = ImageDraw.Draw(page)
    pen.rectangle((0, 0, w, 56), fill=(44, 62, 100))
    pen.text((24, 14), "the daily page", "white", _font(26))
    pen.rounded_rectangle((480, 12, 1100, 44), 14, fill="white")
    for row in range(22):
        pen.text((880, 90 + 32 * row), f"{_words(draw)} {_words(draw)}", (60, 60, 60), _font(16))
    left, top = int(draw.integers(20, 61)), int(draw.integers(70, 121))
    page.paste(shown, (left, top))
    pen.text((left, top + shown.height + 10), f"{_words(draw)}, {_words(draw)}", (90, 90, 90), _font(18))
    return np.asarray(page)


def in_collage(rgb: U8, draw: Generator) -> U8:
    """One of four tiles of the same size, cut to the tile's shape in the middle; the others show other pictures."""
    height, width = rgb.shape[:2]
    sheet = Image.new("RGB", (2 * width, 2 * height))
    mine = int(draw.integers(4))
    for tile in range(4):
        shown = Image.fromarray(rgb) if tile == mine else _company(draw, width, height)
        sheet.paste(shown, (tile % 2 * width, tile // 2 * height))
    return resized(np.asarray(sheet), draw, side=max(height, width))


def in_gray(rgb: U8, draw: Generator) -> U8:
    return np.asarray(Image.fromarray(rgb).convert("L").convert("RGB"))


def brightened(rgb: U8, draw: Generator) -> U8:
    """Brightness and contrast by 0.6 to 1.5 each, then gamma 0.7 or 1.4."""
    image = ImageEnhance.Brightness(Image.fromarray(rgb)).enhance(draw.choice([0.6, 0.75, 1.3, 1.5]))
    image = ImageEnhance.Contrast(image).enhance(draw.choice([0.6, 0.75, 1.3, 1.5]))
    return np.asarray(255 * (np.asarray(image) / 255.0) ** draw.choice([0.7, 1.4]), np.uint8)


def recolored(rgb: U8, draw: Generator) -> U8:
    """Hue turned by 30 to 150 degrees, saturation times 0.4 to 1.8."""
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV_FULL).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + 256 * draw.uniform(30, 150) / 360) % 256
    hsv[..., 1] = (hsv[..., 1] * draw.uniform(0.4, 1.8)).clip(0, 255)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB_FULL), np.uint8)


def aged(rgb: U8, draw: Generator) -> U8:
    """Warm, with less contrast and dark corners, as photo filters do."""
    height, width = rgb.shape[:2]
    y, x = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
    fall = 1 - 0.38 * (x * x + y * y)
    return np.asarray(((30 + 0.8 * rgb) * (1.12, 1.0, 0.78) * fall).clip(0, 255), np.uint8)


def blurred(rgb: U8, draw: Generator, *, share: float) -> U8:
    """Gaussian, its deviation a share of the longer side."""
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(share * max(rgb.shape[:2]))))


def noisy(rgb: U8, draw: Generator, *, deviation: float) -> U8:
    return np.asarray((rgb + draw.normal(0, deviation, rgb.shape)).clip(0, 255), np.uint8)


def with_emoji(rgb: U8, draw: Generator) -> U8:
    """Three to six smiling faces, each an eighth to a fourth of the shorter side."""
    image = Image.fromarray(rgb)
    pen = ImageDraw.Draw(image)
    for _ in range(int(draw.integers(3, 7))):
        r = draw.uniform(1 / 16, 1 / 8) * min(image.size)
        x, y = draw.uniform(r, image.width - r), draw.uniform(r, image.height - r)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=(255, 205, 40), outline=(200, 140, 0), width=max(1, round(r / 12)))
        for side in (-1, 1):
            pen.ellipse((x + side * r * 0.4 - r / 7, y - r * 0.4, x + side * r * 0.4 + r / 7, y), fill=(60, 35, 10))
        pen.arc((x - r * 0.6, y - r * 0.5, x + r * 0.6, y + r * 0.65), 20, 160, fill=(60, 35, 10), width=max(2, round(r / 8)))
    return np.asarray(image)


def dotted(rgb: U8, draw: Generator) -> U8:
    """Printed: paler, a grid of dots over it."""
    y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]]
    grid = 10 * np.sin(x * 1.1 + y * 0.4) * np.sin(y * 1.1 - x * 0.4)
    return np.asarray((18 + 0.84 * rgb + grid[..., None]).clip(0, 255), np.uint8)


@lru_cache(4)
def _pictures() -> tuple[Image.Image, ...]:
    return tuple(Image.fromarray(sample(name)) for name in COMPANY)


def _company(draw: Generator, width: int, height: int) -> Image.Image:
    """Another picture, that is never registered, of that size."""
    return _pictures()[int(draw.integers(len(COMPANY)))].resize((width, height), Image.Resampling.BILINEAR)


@lru_cache(64)
def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(8.0, size))


def _words(draw: Generator) -> str:
    return _WORDS[int(draw.integers(len(_WORDS)))]


def _jpeg(quality: int) -> Step:
    return partial(compressed, kind="JPEG", quality=quality)


_ATTACKS: Final = (
    Attack("jpeg_20", (_jpeg(20),)),
    Attack("jpeg_10", (_jpeg(10),)),
    Attack("webp_30", (partial(compressed, kind="WEBP", quality=30),)),
    Attack("resize_25", (partial(resized, factor=0.25),)),
    Attack("resize_160px", (partial(resized, side=160),)),
    Attack("crop_50", (partial(cropped, share=0.5),)),
    Attack("crop_25", (partial(cropped, share=0.25, corner=True),)),
    Attack("crop_10", (partial(cropped, share=0.1),)),
    Attack("mirror", (mirrored,)),
    Attack("mirror_crop_50", (mirrored, partial(cropped, share=0.5))),
    Attack("rotate_5", (partial(rotated, degrees=5),), "affine"),
    Attack("rotate_15", (partial(rotated, degrees=15),), "affine"),
    Attack("rotate_45", (partial(rotated, degrees=45),), "affine"),
    Attack("rotate_90", (partial(rotated, degrees=90),), "affine"),
    Attack("rotate_180", (partial(rotated, degrees=180),), "affine"),
    Attack("text", (captioned,)),
    Attack("overlay_30", (partial(covered, share=0.3),)),
    Attack("meme", (as_meme,)),
    Attack("frame", (framed,)),
    Attack("screenshot", (on_page, _jpeg(80))),
    Attack("collage", (in_collage, _jpeg(85))),
    Attack("gray", (in_gray,)),
    Attack("brightness", (brightened,)),
    Attack("recolored", (recolored,)),
    Attack("filter", (aged, _jpeg(75))),
    Attack("blur", (partial(blurred, share=0.006),)),
    Attack("noise", (partial(noisy, deviation=20),)),
    Attack("reposted", (partial(cropped, share=0.7), partial(resized, side=320), _jpeg(30))),
    Attack("aspect_125", (partial(stretched, aspect=1.25),)),
    Attack("perspective", (partial(tilted, share=0.12),), "perspective"),
    Attack("emoji", (with_emoji,)),
    Attack(
        "print_scan",
        (partial(rotated, degrees=2), dotted, partial(blurred, share=0.002), partial(noisy, deviation=8), aged, _jpeg(60)),
        "affine",
    ),
)
ATTACKS: Final[Mapping[str, Attack]] = {attack.name: attack for attack in _ATTACKS}
PLAIN: Final = ("jpeg_20", "webp_30", "resize_25", "gray", "brightness", "filter", "noise", "aspect_125")
"""What leaves the whole picture where it was: asked of flat pictures too."""
