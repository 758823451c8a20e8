"""One picture under attack: what its owner made of it, and what detection says of what an attacker left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np

from bench.copies.sets import Picture
from bench.watermark.methods import key_of
from bench.watermark.quality import psnr
from matcher.pixels import U8, gray, resized
from matcher.watermark.align import align
from matcher.watermark.detect import MAX_P, detect_all, statistic
from matcher.watermark.embed import embed
from matcher.watermark.query import Query
from matcher.watermark.registration import Registration
from matcher.watermark.residual import spectrum

UNFOUND: Final = 6.0
"""A statistic that is not found: with both signs and the first place counted it would be 6.13."""
_SIDE: Final = 1200
_GROWTH: Final = 1.2
_RISES: Final = 30
_HALVINGS: Final = 12


class Outcome(NamedTuple):
    """`what` was done; `psnr` of the result against the unmarked original, None where it is bent or turned; `z` of the mark found least
    where several were looked for; `found`: the share of the marks that are, by their p-values."""

    what: str
    psnr: float | None
    z: float
    found: float


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """`original` and `marked`: H x W x 3; `name` seeds what is drawn."""

    name: str
    original: U8
    marked: U8
    registration: Registration

    def outcome(self, what: str, left: U8, *, comparable: bool = True, registrations: Sequence[Registration] = ()) -> Outcome:
        """`comparable`: pixel by pixel; `registrations` of this picture: those that are looked for, the case's own by default."""
        keys = registrations or [self.registration]
        found = [detection.p_value <= MAX_P for detection in detect_all(Query.of(left), keys)]
        return Outcome(what, psnr(self.original, left) if comparable else None, min(_z(left, keys), key=abs), float(np.mean(found)))

    def z(self, left: U8) -> float:
        """The statistic of the case's own mark, negative where more was taken off than was there; 0 where the picture is not found."""
        return _z(left, [self.registration])[0]

    def blamed(self, what: str, left: U8, innocent: Sequence[Registration]) -> Outcome:
        """The registration that is suspected most, of those whose marks are not in it."""
        found = [detection.p_value <= MAX_P for detection in detect_all(Query.of(left), innocent)]
        return Outcome(what, psnr(self.original, left), max(_z(left, innocent), key=abs), float(np.mean(found)))


def least(enough: Callable[[float], bool], most: float) -> float:
    """The least value that is enough, nearly; `most` where none is. More may be too much again: the values are tried from below."""
    low, high = 0.0, most * _GROWTH**-_RISES
    while not enough(high):
        if high >= most:
            return most
        low, high = high, min(most, high * _GROWTH)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _z(left: U8, registrations: Sequence[Registration]) -> list[float]:
    """The statistics themselves: a p-value of double precision ends at 37. 0 where the picture is not found."""
    aligned = align(gray(left), registrations[0])
    if aligned is None:
        return [0.0] * len(registrations)
    observed = spectrum(aligned)
    return [statistic(observed, registration.key, aligned.known.grid) for registration in registrations]


def case(picture: Picture, side: int = _SIDE) -> Case:
    """The picture, with `side` pixels on its longer side at most, marked."""
    cv2.setNumThreads(1)
    rgb = picture.load()
    rgb = resized(rgb, side) if max(rgb.shape[:2]) > side else rgb
    return Case(picture.name, rgb, *embed(rgb, key=key_of(picture.name)))
