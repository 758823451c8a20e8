"""Pictures at several sizes, to be sampled on any frame without aliasing, and the frames that a query shows something of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from matcher.pixels import F32, F64, U8, scaling

_SAMPLES: Final = 33
_SHRINKS: Final = 1.2
_SOFT: Final = 0.4
_LEAST: Final = (12, 24)
"""Pixels of the shorter and the longer side that a frame has at least."""


@dataclass(frozen=True, slots=True, eq=False)
class Pyramid:
    """A picture (H x W luma, float32) and its halves, each area-averaged from the one before."""

    levels: tuple[F32, ...]

    @classmethod
    def of(cls, image: U8) -> Pyramid:
        levels = [np.asarray(image, np.float32)]
        while min(levels[-1].shape) >= 32:
            height, width = levels[-1].shape
            levels.append(
                np.asarray(cv2.resize(levels[-1], ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA), np.float32)
            )
        return cls(tuple(levels))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)"""
        return self.levels[0].shape[1], self.levels[0].shape[0]

    def warp(self, transform: F64, size: tuple[int, int]) -> F32:
        """Sampled at each pixel of a frame of (width, height) `size`, area-averaged where it shrinks; `transform`: frame -> picture."""
        level, to_level, left = self._finer(transform, size)
        if left > _SHRINKS:
            level = soft(level, left)
        how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpPerspective(level, to_level, size, flags=how, borderMode=cv2.BORDER_REPLICATE), np.float32)

    def softened(self, transform: F64, size: tuple[int, int]) -> bool:
        """Whether `warp` leaves out a little of what the frame can show, as `soft` does."""
        return self._finer(transform, size)[2] > _SHRINKS

    def _finer(self, transform: F64, size: tuple[int, int]) -> tuple[F32, F64, float]:
        """The next level that has more pixels than the frame, frame -> level, and how many of its pixels are one of the frame."""
        shrink = _zoom(transform, size)
        level, to_level = self._level(int(np.floor(np.log2(max(shrink, 1.0)))), transform)
        return level, to_level, shrink * level.shape[1] / self.size[0]

    def warp_roughly(self, transform: F64, size: tuple[int, int]) -> F32:
        """Like `warp`, several times as fast: for what is smoothed anyway."""
        level, to_level = self._level(int(np.ceil(np.log2(max(_zoom(transform, size), 1.0)) - 0.5)), transform)
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpPerspective(level, to_level, size, flags=how, borderMode=cv2.BORDER_REPLICATE), np.float32)

    def shown(self, transform: F64, size: tuple[int, int]) -> F32:
        """1 where the picture shows a pixel of the frame, else 0."""
        level, to_level = self._level(len(self.levels) - 1, transform)
        inside, how = np.ones(level.shape, np.uint8), cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpPerspective(inside, to_level, size, flags=how), np.float32)

    def _level(self, number: int, transform: F64) -> tuple[F32, F64]:
        level = self.levels[min(number, len(self.levels) - 1)]
        return level, scaling(self.size, (level.shape[1], level.shape[0])) @ transform


def soft(image: F32, pixels: float = 1.0) -> F32:
    """What is left when one pixel of a frame stands for so many of the image's."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), _SOFT * pixels), np.float32)


def _zoom(transform: F64, size: tuple[int, int]) -> float:
    """Pixels of the picture for one of the frame, in its middle."""
    middle = np.array([size[0] / 2, size[1] / 2, 1.0])
    depth = float(transform[2] @ middle)
    return float(np.sqrt(abs(np.linalg.det(transform)) / max(abs(depth) ** 3, 1e-12)))


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A part of the grid, with pixels of its own: `to_grid` is 3 x 3, frame -> grid; `size` (width, height)."""

    to_grid: F64
    size: tuple[int, int]

    @classmethod
    def around(cls, transform: F64, grid: tuple[int, int], query: tuple[int, int], side: int, finest: float) -> Frame | None:
        """What the query shows of the grid, `side` pixels long or with `finest` pixels for one of the grid, whichever is coarser."""
        box = shown_box(transform, grid, query)
        if box is None:
            return None
        left, top, width, height = box
        zoom = min(side / max(width, height), finest)
        size = max(1, round(width * zoom)), max(1, round(height * zoom))
        if min(size) < _LEAST[0] or max(size) < _LEAST[1]:
            return None
        return cls(np.array([[1, 0, left], [0, 1, top], [0, 0, 1.0]]) @ scaling(size, (width, height)), size)


def shown_box(transform: F64, grid: tuple[int, int], query: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Left, top, width and height of what the query shows of the grid; None where that is nothing."""
    y, x = (np.mgrid[0:_SAMPLES, 0:_SAMPLES] / (_SAMPLES - 1)).reshape(2, -1)
    x, y = x * (grid[0] - 1), y * (grid[1] - 1)
    moved = transform @ np.stack([x, y, np.ones_like(x)])
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = moved[0] / moved[2], moved[1] / moved[2]
    inside = (moved[2] > 0) & (u > -0.5) & (u < query[0] - 0.5) & (v > -0.5) & (v < query[1] - 0.5)
    if not inside.any():
        return None
    step = np.array(grid) / (_SAMPLES - 1)
    low = np.maximum(np.floor([x[inside].min() - step[0], y[inside].min() - step[1]]), 0).astype(int)
    high = np.minimum(np.ceil([x[inside].max() + step[0], y[inside].max() + step[1]]), np.array(grid) - 1).astype(int)
    return int(low[0]), int(low[1]), int(high[0] - low[0] + 1), int(high[1] - low[1] + 1)
