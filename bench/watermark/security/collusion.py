"""Who has several copies of one picture, each marked with another key, and mixes them: is each still traced, and nobody else?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.copies.sets import Picture
from bench.watermark.methods import key_of
from bench.watermark.security.case import Case, Outcome, case
from matcher.pixels import U8
from matcher.watermark.embed import embed

_COPIES: Final = (2, 3, 5, 10, 20)
_INNOCENT: Final = 50
Mix = Callable[[npt.NDArray[np.uint8]], npt.NDArray[Any]]


def attack(picture: Picture) -> list[Outcome]:
    return mixed(case(picture), _COPIES)


def quick(picture: Picture) -> list[Outcome]:
    return mixed(case(picture), (3,))


def mixed(owned: Case, counts: Sequence[int]) -> list[Outcome]:
    """The colluder that is traced least, for each way to mix each number of copies; and the most suspected innocent of all."""
    keys = [key_of(f"copy {number} of {owned.name}") for number in range(max(counts))]
    copies = np.stack([embed(owned.original, key=key)[0] for key in keys])
    colluders = [replace(owned.registration, key=key) for key in keys]
    innocent = [replace(owned.registration, key=key_of(f"innocent {number} of {owned.name}")) for number in range(_INNOCENT)]
    outcomes = []
    for count in counts:
        for how, mix in MIXES.items():
            left: U8 = np.asarray(np.rint(mix(copies[:count])), np.uint8)
            outcomes.append(owned.outcome(f"{count} copies, {how}", left, registrations=colluders[:count]))
    blamed = [owned.blamed(f"innocent keys beside {count} mixed", _mean(copies[:count]), innocent) for count in counts]
    return [*outcomes, *blamed, _shared(owned, max(counts))]


def _shared(owned: Case, count: int) -> Outcome:
    """Copies of a picture that was marked already carry that mark all together: no mixing weakens it."""
    copies = np.stack([embed(owned.marked, key=key_of(f"copy {number} of {owned.name}"))[0] for number in range(count)])
    return owned.outcome(f"{count} copies of a marked picture: the mark that all have, after the mean", _mean(copies))


def _mean(copies: npt.NDArray[np.uint8]) -> U8:
    return np.asarray(np.rint(copies.mean(axis=0)), np.uint8)


def _patchwork(copies: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Tiles of 64 pixels, each from another copy in turn."""
    y, x = np.mgrid[: copies.shape[1], : copies.shape[2]] // 64
    chosen = (x + 7 * y) % len(copies)
    return np.asarray(np.take_along_axis(copies, chosen[None, ..., None], 0)[0])


MIXES: Final[Mapping[str, Mix]] = {
    "mean": lambda copies: copies.mean(axis=0, dtype=np.float32),
    "median": lambda copies: np.median(copies, axis=0),
    "lowest": lambda copies: copies.min(axis=0),
    "highest": lambda copies: copies.max(axis=0),
    "middle of lowest and highest": lambda copies: (copies.min(axis=0).astype(np.float32) + copies.max(axis=0)) / 2,
    "patchwork": _patchwork,
}
