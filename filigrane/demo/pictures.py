"""The demo's pictures: sample files that come with scikit-image, and generated ones. Arrays are uint8 sRGB, H x W x 3.

`ORIGINALS` are what the owner registers; `DECOYS` are nobody's copies and only look like them: another photo of the same scene,
the same kind of picture drawn from another seed, the same colours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import as_file, files
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Rgb = NDArray[np.uint8]
_Plane = NDArray[np.float32]

WIDTH, HEIGHT = 1080, 720


def sample(filename: str) -> Rgb:
    """A picture bundled with scikit-image."""
    with as_file(files("skimage") / "data" / filename) as path, Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def mountains(seed: int) -> Rgb:
    """Ridges behind ridges under an evening sky."""
    rng = np.random.default_rng(seed)
    down = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    picture = _mix((250, 190, 120), (60, 90, 150), 1 - down) * np.ones((1, WIDTH, 1), np.float32)
    clouds = _noise(rng, 6)
    picture += (np.clip(clouds - 0.55, 0, 1) * 140)[:, :, None]
    rows = np.arange(HEIGHT)[:, None]
    for depth in range(5):
        ridge = HEIGHT * (0.35 + 0.12 * depth) + (_line(rng) - 0.5) * HEIGHT * 0.35
        color = _mix((150, 150, 170), (25, 45, 40), np.float32(depth / 4)) * np.ones((HEIGHT, WIDTH, 1), np.float32)
        texture = (_noise(rng, 7, first=8 + 4 * depth) - 0.5) * (60 + 20 * depth)
        below = (rows > ridge[None, :])[:, :, None]
        picture = np.where(below, color + texture[:, :, None], picture)
    return _finished(picture)


def marble(seed: int) -> Rgb:
    """Veins in polished stone: a sine wave over warped noise."""
    rng = np.random.default_rng(seed)
    warp = _noise(rng, 7)
    across = np.linspace(0, 6, WIDTH, dtype=np.float32)[None, :] + np.linspace(0, 3, HEIGHT, dtype=np.float32)[:, None]
    veins = np.abs(np.sin(across * 2 + warp * 14)) ** 0.5
    light, dark = rng.integers(180, 250, 3), rng.integers(20, 110, 3)
    return _finished(_mix(tuple(dark), tuple(light), veins[:, :, None]) + ((_noise(rng, 8, first=32) - 0.5) * 50)[:, :, None])


def city(seed: int) -> Rgb:
    """A skyline at night, some windows lit."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(
        _finished(_mix((15, 18, 45), (90, 60, 80), np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]).repeat(WIDTH, 1))
    )
    draw = ImageDraw.Draw(image)
    for depth in range(3):
        left = -40
        while left < WIDTH:
            width, top = int(rng.integers(50, 130)), int(HEIGHT * rng.uniform(0.15 + 0.15 * depth, 0.6 + 0.1 * depth))
            _house(draw, rng, (left, top, left + width, HEIGHT), depth)
            left += width + int(rng.integers(0, 30))
    return _finished(np.asarray(image, np.float32) + ((_noise(rng, 7, first=16) - 0.5) * 30)[:, :, None])


def stained_glass(seed: int) -> Rgb:
    """Coloured panes (the cells of random points) in lead."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT:3, :WIDTH:3].astype(np.float32)
    first, second = np.full(y.shape, np.inf, np.float32), np.full(y.shape, np.inf, np.float32)
    panes = np.zeros((*y.shape, 3), np.float32)
    for at_y, at_x in rng.uniform((0, 0), (HEIGHT, WIDTH), (70, 2)).astype(np.float32):
        distance = np.hypot(y - at_y, x - at_x)
        panes[distance < first] = rng.integers(30, 250, 3)
        second = np.minimum(second, np.maximum(first, distance))
        first = np.minimum(first, distance)
    lead = np.clip((second - first) / 9, 0, 1)
    large = Image.fromarray(_finished((panes * lead[:, :, None]).astype(np.float32))).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return _finished(np.asarray(large, np.float32) + ((_noise(rng, 7, first=12) - 0.5) * 70)[:, :, None])


def stars(seed: int) -> Rgb:
    """A sky full of stars of all sizes."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (WIDTH, HEIGHT), (6, 6, 10))
    draw = ImageDraw.Draw(image)
    for _ in range(900):
        x, y, radius = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), rng.exponential(1.2)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tuple(int(v) for v in rng.integers(110, 256, 3)))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(0.8)))


def dusk(seed: int) -> Rgb:
    """A clear evening sky over a dark horizon with lamps."""
    rng = np.random.default_rng(seed)
    down = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    image = Image.fromarray(_finished(_mix((20, 35, 85), (120, 120, 150), down).repeat(WIDTH, 1)))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, int(HEIGHT * 0.9), WIDTH, HEIGHT), fill=(12, 10, 14))
    for x in rng.uniform(0, WIDTH, 14):
        top = HEIGHT * rng.uniform(0.45, 0.85)
        draw.line((x, top, x, HEIGHT), fill=(40, 40, 50), width=3)
        draw.ellipse((x - 7, top - 7, x + 7, top + 7), fill=(255, 220, 150))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(1.0)))


def same_colors(filename: str, seed: int) -> Rgb:
    """Exactly the pixels of a sample file, laid out anew by their brightness along a noise field."""
    source = sample(filename)
    height, width, _ = source.shape
    pixels = source.reshape(-1, 3)
    field = np.asarray(Image.fromarray(_noise(np.random.default_rng(seed), 7)).resize((width, height)))
    laid = np.empty_like(pixels)
    laid[np.argsort(field, axis=None, kind="stable")] = pixels[np.argsort(pixels.sum(1, dtype=np.int32), kind="stable")]
    return laid.reshape(source.shape)


ORIGINALS: Final[Mapping[str, Callable[[], Rgb]]] = {
    "astronaut": partial(sample, "astronaut.png"),
    "cat": partial(sample, "chelsea.png"),
    "coffee": partial(sample, "coffee.png"),
    "rocket": partial(sample, "rocket.jpg"),
    "galaxies": partial(sample, "hubble_deep_field.jpg"),
    "retina": partial(sample, "retina.jpg"),
    "motorcycle": partial(sample, "motorcycle_left.png"),
    "tissue": partial(sample, "ihc.png"),
    "moon": partial(sample, "moon.png"),
    "coins": partial(sample, "coins.png"),
    "photographer": partial(sample, "camera.png"),
    "gravel": partial(sample, "gravel.png"),
    "mountains": partial(mountains, 1),
    "marble": partial(marble, 2),
    "city": partial(city, 3),
    "stained-glass": partial(stained_glass, 4),
}

WATERMARKED: Final = frozenset({"astronaut", "coffee", "rocket", "retina", "tissue", "mountains", "marble"})

DECOYS: Final[Mapping[str, Callable[[], Rgb]]] = {
    "the motorcycle from half a step aside": partial(sample, "motorcycle_right.png"),
    "other mountains": partial(mountains, 11),
    "other marble": partial(marble, 12),
    "another city": partial(city, 13),
    "another window": partial(stained_glass, 14),
    "another starry sky": partial(stars, 15),
    "another evening sky": partial(dusk, 16),
    "the colours of the coffee": partial(same_colors, "coffee.png", 17),
    "grass, not gravel": partial(sample, "grass.png"),
    "bricks": partial(sample, "brick.png"),
    "a cell, not a moon": partial(sample, "cell.png"),
    "a logo": partial(sample, "logo.png"),
}


def _house(draw: ImageDraw.ImageDraw, rng: np.random.Generator, box: tuple[int, int, int, int], depth: int) -> None:
    left, top, right, bottom = box
    shade = 60 - 18 * depth
    draw.rectangle(box, fill=(shade, shade, shade + 12))
    for y in range(top + 10, bottom, 18):
        for x in range(left + 8, right - 12, 14):
            if rng.random() < 0.35:
                draw.rectangle(
                    (x, y, x + 6, y + 9), fill=(int(rng.integers(180, 256)), int(rng.integers(140, 220)), int(rng.integers(60, 140)))
                )


def _noise(rng: np.random.Generator, octaves: int, first: int = 3) -> _Plane:
    """Fractal noise in 0..1, HEIGHT x WIDTH: random grids, each twice as fine and half as strong as the one before."""
    total = np.zeros((HEIGHT, WIDTH), np.float32)
    for octave in range(octaves):
        cells = min(first << octave, HEIGHT)
        grid = rng.random((cells, min(cells * 3 // 2, WIDTH)), np.float32)
        total += np.asarray(Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)) / (1 << octave)
    return _scaled(total)


def _line(rng: np.random.Generator) -> _Plane:
    """A row of fractal noise in 0..1."""
    total = np.zeros(WIDTH, np.float32)
    for octave in range(8):
        heights = rng.random((1, 4 << octave), np.float32)
        total += np.asarray(Image.fromarray(heights).resize((WIDTH, 1), Image.Resampling.BICUBIC))[0] / (1 << octave)
    return _scaled(total)


def _scaled(plane: _Plane) -> _Plane:
    """To 0..1."""
    lowest: np.float32 = plane.min()
    scaled: _Plane = (plane - lowest) / (plane.max() - lowest)
    return scaled


def _mix(first: tuple[int, ...], second: tuple[int, ...], share: _Plane | np.float32) -> _Plane:
    """From `first` (share 0) to `second` (share 1)."""
    mixed: _Plane = np.asarray(first, np.float32) * (1 - share) + np.asarray(second, np.float32) * share
    return mixed


def _finished(picture: _Plane) -> Rgb:
    return np.clip(picture, 0, 255).astype(np.uint8)
