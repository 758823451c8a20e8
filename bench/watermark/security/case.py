"""One picture under attack: what its owner made of it, and what detection says of what an attacker left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np

from bench.copies.sets import Picture
from bench.watermark.methods import key_of
from bench.watermark.quality import psnr
from matcher.pixels import U8, resized
from matcher.watermark.detect import MAX_P, detect_all
from matcher.watermark.embed import embed
from matcher.watermark.registration import Registration

_SIDE: Final = 1200
_LEAST_P: Final = 5e-324


class Outcome(NamedTuple):
    """`what` was done; `psnr` of the result against the unmarked original, None where it is bent or turned; `log_p`: -log10 of the p-value,
    of the mark found least where several were looked for; `found`: the share of the marks that are."""

    what: str
    psnr: float | None
    log_p: float
    found: float


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """`original` and `marked`: H x W x 3; `name` seeds what is drawn."""

    name: str
    original: U8
    marked: U8
    registration: Registration

    def blamed(self, what: str, left: U8, innocent: Sequence[Registration]) -> Outcome:
        """The registration that is suspected most, of those whose marks are not in it."""
        p_values = [detection.p_value for detection in detect_all(left, innocent)]
        return Outcome(
            what, psnr(self.original, left), -math.log10(max(min(p_values), _LEAST_P)), float(np.mean(np.array(p_values) <= MAX_P))
        )

    def outcome(self, what: str, left: U8, *, comparable: bool = True, registrations: Sequence[Registration] = ()) -> Outcome:
        """`comparable`: pixel by pixel; `registrations`: those that are looked for, the case's own by default."""
        found = detect_all(left, registrations or [self.registration])
        least = max(max(detection.p_value for detection in found), _LEAST_P)
        share = sum(detection.p_value <= MAX_P for detection in found) / len(found)
        return Outcome(what, psnr(self.original, left) if comparable else None, -math.log10(least), share)


def case(picture: Picture, side: int = _SIDE) -> Case:
    """The picture, with `side` pixels on its longer side at most, marked."""
    cv2.setNumThreads(1)
    rgb = picture.load()
    rgb = resized(rgb, side) if max(rgb.shape[:2]) > side else rgb
    return Case(picture.name, rgb, *embed(rgb, key=key_of(picture.name)))
