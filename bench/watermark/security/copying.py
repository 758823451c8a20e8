"""Who wants to put a mark where it is not, or to learn a key's pattern from many pictures that carry it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from bench.copies.sets import Picture, sample
from bench.watermark.methods import key_of
from bench.watermark.security.case import UNFOUND, Case, Outcome, case, least
from bench.watermark.security.estimate import shown, taken_off
from bench.watermark.security.removal import wavelet
from matcher.pixels import F32, U8, resized_to
from matcher.watermark.embed import embed
from matcher.watermark.keys import C64

_OTHER: Final = "coffee.png"
_NOISE: Final = 5.0
"""Gray levels that are taken for the mark when a picture is denoised."""
_SHAPE: Final = (1024, 683)
"""Width and height that pictures with one key are brought to: their grid, so that the same pattern lies in the same place."""
_MOST: Final = 16.0
"""Times the default's strength."""


def attack(picture: Picture) -> list[Outcome]:
    """The copy attack (Kutter, Voloshynovskiy and Herrigel 2000)."""
    owned = case(picture)
    height, width = owned.marked.shape[:2]
    other = resized_to(sample(_OTHER), (width, height))
    estimate, exact = _left(owned.marked), owned.marked.astype(np.float32) - owned.original
    onto = replace(owned, original=other)
    return [
        onto.outcome("its estimated mark, in another picture", _added(other, estimate)),
        onto.outcome("its estimated mark, 4 times as strong, in another picture", _added(other, 4 * estimate)),
        onto.outcome("its exact mark, from original and copy, in another picture", _added(other, exact)),
        owned.outcome("its estimated mark, in the unmarked original", _added(owned.original, estimate)),
        owned.outcome("its exact mark, in the unmarked original: the copy again", _added(owned.original, exact)),
    ]


def one_key(pictures: Sequence[Picture], victim: Picture) -> list[Outcome]:
    """The pattern is estimated from all pictures but the victim, and taken off that, as weakly as suffices; how weakly, a detector says."""
    key = key_of("one for all")
    owned = _case(victim, key)
    seen = [shown(_case(picture, key).marked) for picture in pictures if picture is not victim]
    outcomes = [owned.outcome("nothing", owned.marked)]
    for count in sorted({min(count, len(seen)) for count in (3, 10, len(seen))}):
        outcomes.append(_weakest(owned, np.asarray(np.mean(seen[:count], axis=0), np.complex64), count))
    return outcomes


def _weakest(owned: Case, numbers: C64, count: int) -> Outcome:
    times = least(lambda times: owned.z(taken_off(owned.marked, numbers, times)) < UNFOUND, _MOST)
    return owned.outcome(f"the pattern as {count} others show it, taken off until it is not found", taken_off(owned.marked, numbers, times))


def _case(picture: Picture, key: bytes) -> Case:
    rgb = resized_to(picture.load(), _SHAPE)
    return Case(picture.name, rgb, *embed(rgb, key=key))


def _left(marked: U8) -> F32:
    """What a denoiser takes for noise: the mark, and much else."""
    return np.asarray(marked.astype(np.float32) - wavelet(marked, _NOISE), np.float32)


def _added(rgb: U8, change: F32) -> U8:
    return np.asarray(np.clip(np.rint(rgb + change), 0, 255), np.uint8)
