"""Adding a change to the samples of a file, in place and by stripes of rows."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from matcher.pixels import F32
from matcher.watermark.embed import stripes

Samples = npt.NDArray[Any]
"""uint8 or uint16, H x W or H x W x channels."""
_LEAST_WHITE: Final = 0.25


def add_to(samples: Samples, change: F32) -> None:
    """Adds the change, which is in steps of 8 bit and given on the canonical grid as the picture lies, to each channel."""
    kind = cv2.CV_8U if samples.dtype == np.uint8 else cv2.CV_16U
    unit = np.float32(np.iinfo(samples.dtype).max / 255)
    for rows, part in stripes(change, (samples.shape[1], samples.shape[0])):
        scaled = part * unit
        added = scaled if samples.ndim == 2 else cv2.merge([scaled] * samples.shape[2])
        samples[rows] = cv2.add(samples[rows], added, dtype=kind)  # rounds, and stays in the range


def add_to_inks(inks: Samples, change: F32) -> None:
    """Adds the change to what a picture in cyan, magenta, yellow and black (H x W x 4) shows.

    R = (1 - K)(1 - C), and so on: black stays, the colours answer for the change. Where black covers nearly all they cannot.
    """
    most = np.float32(np.iinfo(inks.dtype).max)
    for rows, part in stripes(change, (inks.shape[1], inks.shape[0])):
        white = np.maximum(1 - inks[rows, :, 3] / most, _LEAST_WHITE)
        less = (part / white)[..., None] * (most / 255)
        inks[rows, :, :3] = np.clip(np.rint(inks[rows, :, :3] - less), 0, most)


def add_beside_alpha(samples: Samples, change: F32) -> None:
    """Adds the change to all channels but the last, which is alpha; pixels that are wholly transparent stay as they are."""
    for rows, part in stripes(change, (samples.shape[1], samples.shape[0])):
        seen = samples[rows, :, -1:] > 0
        largest = np.iinfo(samples.dtype).max
        added = np.rint(samples[rows, :, :-1] + part[..., None] * np.float32(largest / 255))
        np.copyto(samples[rows, :, :-1], np.clip(added, 0, largest), where=seen, casting="unsafe")
