"""How much of the pattern each place of a picture hides.

In an even place structural similarity (Wang et al. 2004) and the eye allow little more than half a gray level; texture hides a share of its
own amplitude, less where there is so much of it that the whole would fall below `MIN_PSNR`. An edge is no texture: the activity is the
square of the mean root of what is left beside the local mean, which a lone edge hardly raises.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from matcher.pixels import F32, U8
from matcher.watermark.keys import halved

MIN_PSNR: Final = 48.0
"""Of every marked picture, in dB, over all pixels and channels."""
POWER: Final = 255.0**2 / 10 ** (MIN_PSNR / 10) - 1 / 12
"""Of the change, in squared gray levels; rounding adds a twelfth."""
_EVEN: Final = 0.62
_TEXTURE: Final = 0.14


def strength(luma: U8 | F32) -> F32:
    """The pattern's standard deviation at each place of a luma picture on the grid (H x W), in gray levels."""
    height, width = luma.shape
    image = cv2.resize(np.asarray(luma, np.float32), halved((width, height)), interpolation=cv2.INTER_AREA)
    bound = half_strength(np.asarray(image, np.float32))
    return np.asarray(cv2.resize(bound, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def half_strength(image: F32) -> F32:
    """The same of a picture with half the grid's pixels each way, at these."""
    detail = np.sqrt(np.abs(image - cv2.GaussianBlur(image, (0, 0), 2)))
    textured = cv2.boxFilter(detail, -1, (9, 9)) ** 4
    share = min(_TEXTURE**2, (POWER - _EVEN**2) / max(float(textured.mean()), 1e-9))
    return np.asarray(cv2.GaussianBlur(np.sqrt(_EVEN**2 + share * textured), (0, 0), 3), np.float32)
