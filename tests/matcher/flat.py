"""Pictures with little texture, gray, H x W; every seed is another one."""

from __future__ import annotations

import cv2
import numpy as np

from matcher.pixels import U8


def sky(seed: int) -> U8:
    """Smooth noise."""
    coarse = np.random.default_rng(seed).integers(90, 250, (4, 5)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC).clip(0, 255), np.uint8)


def ramp(degrees: float) -> U8:
    y, x = np.mgrid[-1:1:480j, -1:1:640j]
    return np.asarray(128 + 70 * (x * np.cos(np.radians(degrees)) + y * np.sin(np.radians(degrees))), np.uint8)


def vignette(x: float, y: float, middle: int, far: int) -> U8:
    """From `middle` at (`x`, `y`), shares of the sides, to `far`."""
    down, right = np.mgrid[0:1:480j, 0:1:640j]
    away = np.hypot(right - x, down - y)
    return np.asarray(middle + (far - middle) * away / away.max(), np.uint8)


def emblem(seed: int, word: str = "") -> U8:
    """A few plain shapes on white, and a word below them."""
    draw = np.random.default_rng(seed)
    image = np.full((480, 640), 255, np.uint8)
    for _ in range(3):
        at = (int(draw.integers(150, 490)), int(draw.integers(120, 360)))
        cv2.circle(image, at, int(draw.integers(30, 110)), int(draw.integers(0, 160)), -1)
    return np.asarray(cv2.putText(image, word, (200, 440), cv2.FONT_HERSHEY_DUPLEX, 2, 40, 6), np.uint8)


def page(seed: int) -> U8:
    """Lines of black words on white, that no other page has where this one has them."""
    draw = np.random.default_rng(seed)
    image = np.full((900, 640), 255, np.uint8)
    for line in range(int(draw.integers(12, 30))):
        left = 60
        while left < 560 and draw.uniform() > 0.1:
            right = min(left + int(draw.integers(20, 90)), 580)
            image[60 + 26 * line : 72 + 26 * line, left:right] = draw.integers(0, 2, (12, right - left)) * 255
            left = right + 10
    return image


def dimmed(image: U8, fall: float) -> U8:
    """With dark corners."""
    y, x = np.mgrid[-1 : 1 : image.shape[0] * 1j, -1 : 1 : image.shape[1] * 1j]
    return np.asarray(image * (1 - fall * (x * x + y * y)), np.uint8)
