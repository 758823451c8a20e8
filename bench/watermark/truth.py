"""Where an attack puts the pixels: told apart from what alignment finds, it says whether alignment or the mark is at fault."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from math import cos, radians, sin
from typing import Any, Final

import cv2
import numpy as np
from numpy.random import Generator

from bench.copies import attacks
from bench.copies.attacks import Attack, Step
from matcher.pixels import F64, U8, flip, scaling

Size = tuple[int, int]
Lies = Callable[..., F64]


def transform(attack: Attack, picture: str, size: Size) -> F64 | None:
    """3 x 3, pixels of a picture of that (width, height) -> pixels of the attacked one; None where that is not known.

    The attack's steps are done to an empty picture, with the same draws.
    """
    draw = np.random.default_rng(zlib.crc32(f"{attack.name}/{picture}".encode()))
    image, found = np.zeros((size[1], size[0], 3), np.uint8), np.eye(3)
    for step in attack.steps:
        before, same_draw = (image.shape[1], image.shape[0]), deepcopy(draw)
        image = np.ascontiguousarray(step(image, draw))
        one = _step(step, before, image, same_draw)
        if one is None:
            return None
        found = one @ found
    return found


def _step(step: Step, size: Size, made: U8, draw: Generator) -> F64 | None:
    function, options = (step.func, step.keywords) if isinstance(step, partial) else (step, {})
    after = made.shape[1], made.shape[0]
    if lies := _LIES.get(function):
        return lies(size, after, draw, **options)
    return np.eye(3) if after == size and function is not attacks.on_page else None


def _cropped(size: Size, after: Size, draw: Generator, *, share: float, corner: bool = False) -> F64:
    if share < 0.6:
        draw.uniform(-1, 1)
    at_x, at_y = draw.integers(0, 2, 2) if corner else draw.uniform(0, 1, 2)
    return _moved(-round((size[0] - after[0]) * at_x), -round((size[1] - after[1]) * at_y))


def _rotated(size: Size, after: Size, draw: Generator, *, degrees: float) -> F64:
    """Counter-clockwise, about the middle of the pixels; quarter turns are exact."""
    angle = radians(degrees if degrees % 90 == 0 else degrees * draw.choice([-1, 1]))
    turn: F64 = np.array([[cos(angle), sin(angle), 0], [-sin(angle), cos(angle), 0], [0, 0, 1]])
    return np.asarray(_moved((after[0] - 1) / 2, (after[1] - 1) / 2) @ turn @ _moved(-(size[0] - 1) / 2, -(size[1] - 1) / 2))


def _tilted(size: Size, after: Size, draw: Generator, *, share: float) -> F64:
    corners = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], np.float32)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) * draw.uniform(0, share, (4, 2)) * size
    return np.asarray(cv2.getPerspectiveTransform(corners, (corners + inwards).astype(np.float32)), float)


def _resized(size: Size, after: Size, draw: Generator, **options: Any) -> F64:
    return scaling(size, after)


def _mirrored(size: Size, after: Size, draw: Generator) -> F64:
    return flip(size[0])


def _moved(x: float, y: float) -> F64:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


_LIES: Final[Mapping[Callable[..., U8], Lies]] = {
    attacks.cropped: _cropped,
    attacks.rotated: _rotated,
    attacks.tilted: _tilted,
    attacks.resized: _resized,
    attacks.mirrored: _mirrored,
}
