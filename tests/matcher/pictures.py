"""Pictures made of noise at all scales, which have as much texture as photographs; every seed is another one."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

import cv2
import numpy as np
from PIL import Image, ImageDraw

from matcher.pixels import F64, U8


@lru_cache(64)
def photo(seed: int, width: int = 600, height: int = 450) -> U8:
    """Coloured noise whose amplitude falls with frequency, with some sharp discs: H x W x 3."""
    draw = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]
    fall = np.maximum(np.hypot(fx, fy), 1 / max(width, height)) ** -1.3
    layers = []
    for _ in range(3):
        noise = np.real(np.fft.ifft2(np.fft.fft2(draw.normal(size=(height, width))) * fall))
        layers.append(128 + 45 * noise / noise.std())
    picture = Image.fromarray(np.stack(layers, -1).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(25):
        x, y, r = (int(v) for v in draw.integers(0, (width, height, 40)))
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(c) for c in draw.integers(0, 255, 3)))
    return np.asarray(picture)


def jpeg(rgb: U8, quality: int) -> U8:
    return opened(encoded(rgb, "JPEG", quality=quality))


def encoded(rgb: U8, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    Image.fromarray(rgb).save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data: bytes) -> U8:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def resize(rgb: U8, factor: float) -> U8:
    size = (max(1, round(rgb.shape[1] * factor)), max(1, round(rgb.shape[0] * factor)))
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def crop(rgb: U8, left: float, top: float, share: float) -> U8:
    """Keeps `share` of each side, from (`left`, `top`) on (0..1)."""
    height, width = rgb.shape[:2]
    y, x = int(top * height), int(left * width)
    return np.ascontiguousarray(rgb[y : y + int(share * height), x : x + int(share * width)])


def mirror(rgb: U8) -> U8:
    return np.ascontiguousarray(rgb[:, ::-1])


def slanted(rgb: U8) -> tuple[U8, F64]:
    """Photographed from the side and from below, and the 3 x 3 transform of pixels."""
    height, width = rgb.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    seen = corners + np.array([[0.12, 0.06], [-0.1, 0.0], [0.0, 0.0], [0.01, -0.04]], np.float32) * [width, height]
    matrix = cv2.getPerspectiveTransform(corners, seen.astype(np.float32))
    return np.asarray(cv2.warpPerspective(rgb, matrix, (width, height)), np.uint8), np.asarray(matrix, np.float64)


def captioned(rgb: U8) -> U8:
    picture = Image.fromarray(rgb)
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, rgb.shape[0] * 4 // 5, rgb.shape[1], rgb.shape[0]), fill="black")
    pen.text((20, rgb.shape[0] * 5 // 6), "WHAT A PICTURE", fill="white", font_size=rgb.shape[0] // 10)
    return np.asarray(picture)


def dialog(words: str, seed: int = 0) -> U8:
    """A drawn window: the same frame and buttons, other words in it."""
    picture = Image.new("RGB", (420, 300), (240, 240, 240))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, 420, 26), fill=(60, 90, 160))
    pen.text((8, 5), "Settings", fill="white", font_size=15)
    for row, word in enumerate(words.split()):
        pen.text((30, 45 + 30 * row), f"{word} {word[::-1]} {seed}", fill="black", font_size=16)
        pen.rectangle((300, 45 + 30 * row, 390, 65 + 30 * row), outline="black", fill="white")
    for column, word in enumerate(("Help", "Cancel", "OK")):
        pen.rectangle((100 + 105 * column, 260, 195 + 105 * column, 290), outline="black", fill=(220, 220, 220))
        pen.text((120 + 105 * column, 266), word, fill="black", font_size=16)
    return np.asarray(picture)
