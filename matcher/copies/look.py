"""How a whole picture looks: one upright descriptor.

The descriptor tells plain copies (recompressed, resized, recoloured, framed), also of pictures without texture in which local features find
nothing: skies, gradients, logos, pages of text. It is SIFT's grid of 4 x 4 cells with 8 directions each (Lowe 2004), laid over the whole
picture as in GIST (Oliva and Torralba 2001), with gradients spread softly over directions as in DAISY (Tola et al. 2010) and square roots
taken as in RootSIFT (Arandjelović and Zisserman 2012). Its layout is such that `features.MIRROR` gives that of the mirrored picture.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from matcher.pixels import F32, U8

_FRAME: Final = 96
"""Side of the square on which plain borders are looked for."""
_SIDE: Final = 32
"""Side of the square that gradients are taken on."""
_SIGMA: Final = 1.0
_POWER: Final = 0.7
"""Of a gradient's magnitude: one hard edge shall not outweigh all the rest."""
_PLAIN: Final = 20
_JUMP: Final = 40
_BORDERS: Final = 2
_LEAST: Final = 8
_CONSTANT: Final = 3.0
"""Gray levels; what differs less is noise."""
_NORM: Final = 512.0
_CHANCE_POWER: Final = 11.97
_CHANCE_AT_NORM: Final = 3.76
_LEAST_CHANCE: Final = 1e-6

NEAR: Final = 130.0
"""Distance within which a look is proposed as the same picture: unrelated photographs are as near once in 10,000 times."""

Box = tuple[int, int, int, int]
Shares = tuple[float, float, float, float]


def look(gray: U8) -> U8:
    """128 x uint8 of an H x W luma picture, compared by Euclidean distance (0 to 724); empty for a picture of one colour, whose copies
    cannot be told from others'."""
    square = _framed(gray)
    top, bottom, left, right = _inner(square)
    small = cv2.resize(square[top:bottom, left:right], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(small, (0, 0), _SIGMA, borderType=cv2.BORDER_REPLICATE), np.float32)
    if np.ptp(smooth) < _CONSTANT:
        return np.zeros(0, np.uint8)
    cells = _POOL @ _directions(smooth) @ _POOL.T  # 8 x rows x columns
    shares = cells.transpose(2, 1, 0).ravel() / cells.sum()
    return np.asarray((np.sqrt(shares) * _NORM).round().clip(0, 255), np.uint8)


def inner(gray: U8) -> Shares:
    """(top, bottom, left, right) of an H x W luma picture without plain borders, as shares of its height and width."""
    top, bottom, left, right = _inner(_framed(gray))
    return top / _FRAME, bottom / _FRAME, left / _FRAME, right / _FRAME


def chance(distance: float) -> float:
    """How probable it is that a photograph that has nothing to do with the query, or its mirror, looks as much alike.

    Fitted to 583,000 pairs of 1,080 photographs between 1e-5 and 1e-1; an extrapolation down to 1e-6, below which it never goes. Skies,
    logos and pages of text look alike far more often.
    """
    return min(1.0, max(_LEAST_CHANCE, float(10**_CHANCE_AT_NORM * (distance / _NORM) ** _CHANCE_POWER)))


def _framed(gray: U8) -> U8:
    return np.asarray(cv2.resize(gray, (_FRAME, _FRAME), interpolation=cv2.INTER_AREA), np.uint8)


def _directions(smooth: F32) -> F32:
    """8 x H x W: how strongly the picture grows brighter towards each direction; opposite ones differ."""
    dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=1, borderType=cv2.BORDER_REPLICATE)
    dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=1, borderType=cv2.BORDER_REPLICATE)
    weight = (dx * dx + dy * dy + np.float32(1e-6)) ** np.float32(_POWER / 2 - 1)
    along = np.maximum(_COSINES * dy + _SINES * dx, 0)
    return np.asarray(along * along * weight, np.float32)


def _inner(square: U8) -> Box:
    """(top, bottom, left, right) without plain borders: uniform strips that end at a sharp edge."""
    top, bottom, left, right = 0, len(square), 0, len(square)
    for _ in range(_BORDERS):
        part = square[top:bottom, left:right]
        above, below, before, behind = borders = [_border(lines) for lines in (part, part[::-1], part.T, part.T[::-1])]
        if not any(borders) or min(part.shape[0] - above - below, part.shape[1] - before - behind) < _LEAST:
            break
        top, bottom, left, right = top + above, bottom - below, left + before, right - behind
    return top, bottom, left, right


def _border(lines: U8) -> int:
    """How many of the first lines have the colour of the first one's middle; 0 where what follows differs softly."""
    middle = int(np.sort(lines[0])[len(lines[0]) // 2])
    if max(int(lines[0].max()) - middle, middle - int(lines[0].min())) > _PLAIN:
        return 0
    half = lines[: len(lines) // 2 + 2]
    apart = np.maximum(half.max(axis=1).astype(np.int16) - middle, middle - half.min(axis=1).astype(np.int16))
    end = int((apart > _PLAIN).argmax())
    sharp = apart[end : end + 3].max() > _JUMP
    return end + 1 if sharp else 0  # the line behind it mixes border and picture


def _pool() -> F32:
    """4 x `_SIDE`: each cell's weights, falling linearly to its neighbours' middles."""
    at = (np.arange(_SIDE) + 0.5) * (4 / _SIDE) - 0.5
    return np.asarray(np.maximum(0, 1 - np.abs(at - np.arange(4)[:, None])), np.float32)


_POOL: Final = _pool()
_ANGLES: Final = (np.arange(8) * (np.pi / 4)).astype(np.float32)[:, None, None]
_COSINES: Final = np.cos(_ANGLES)
_SINES: Final = np.sin(_ANGLES)
