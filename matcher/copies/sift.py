"""Local features of a gray picture, after Lowe 2004, made to be cheap.

Extrema of a difference-of-Gaussians scale space (its first octave is the picture itself, not one twice as large, and starts at a blur of
one pixel), refined by a parabola; one direction, at most two; a 4 x 4 x 8 histogram of gradients as RootSIFT (Arandjelović and Zisserman
2012). Of all points the strongest of each cell of a grid come first, then each cell's second, and so on: a page's text or one busy
corner does not use up all of them. How much contrast a point needs depends on the noise that the picture shows.

The form in C and the one in NumPy take their constants from one `Plan` and come to the same points.
"""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np

from matcher.copies import sift_pure
from matcher.copies.native import address, library
from matcher.copies.sift_plan import PLAN
from matcher.pixels import F32, U8

MAX_SIDE: Final = 8192
DIMENSIONS: Final = 128


def extract(image: U8, count: int) -> tuple[F32, U8]:
    """At most `count` features of an H x W picture: points (n x 4 float32: x, y, diameter in pixels, angle in degrees) and descriptors
    (n x 128 uint8), strong ones first. Raises ValueError for what is no gray picture, or larger than `MAX_SIDE`."""
    if image.dtype != np.uint8 or image.ndim != 2 or not 0 < min(image.shape) <= max(image.shape) <= MAX_SIDE:
        raise ValueError(f"features are of uint8, H x W, of at most {MAX_SIDE} pixels a side; this is {image.dtype}, {image.shape}")
    native = library()
    return _native(native, image, count) if native is not None else sift_pure.extract(image, count)


def _native(native: ctypes.CDLL, image: U8, count: int) -> tuple[F32, U8]:
    image = np.ascontiguousarray(image)
    points, descriptors = np.empty((count, 4), np.float32), np.empty((count, DIMENSIONS), np.uint8)
    height, width = image.shape
    found = native.filigrane_sift(
        address(image),
        ctypes.c_int(width),
        ctypes.c_int(height),
        ctypes.byref(PLAN),
        ctypes.c_int(count),
        address(points),
        address(descriptors),
    )
    if found < 0:
        raise MemoryError("no memory for the picture's features")
    return points[:found].copy(), descriptors[:found].copy()
