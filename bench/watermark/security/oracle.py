"""Who may ask a detector as often as he likes (sensitivity attack: Cox and Linnartz 1998, Comesana et al. 2006).

Marks of his own keys are added to a copy and taken off it; how the answers differ says how much each resembles the owner's mark. Their sum,
so weighted, is his estimate, which is taken off the copy until it is not found. He is given the p-value, or only whether it is marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from bench.copies.sets import Picture
from bench.watermark.methods import key_of
from bench.watermark.security.case import Case, Outcome, case, least
from bench.watermark.significance import MOST, z_of
from matcher.pixels import F32, U8
from matcher.watermark.detect import MAX_P, detect
from matcher.watermark.embed import embed

_QUERIES: Final = (100, 400)
_SIDES: Final = (640, 400, 280, 200, 140)
_PROBE: Final = 3
"""Times the strength of a mark that is added to see what changes."""


def attack(picture: Picture) -> list[Outcome]:
    return asked(picture, _QUERIES)


def quick(picture: Picture) -> list[Outcome]:
    return asked(picture, (20,))


def asked(picture: Picture, counts: Sequence[int]) -> list[Outcome]:
    owned = _readable(picture)
    noise = np.random.default_rng(0).normal(size=owned.marked.shape).astype(np.float32)
    outcomes = [owned.outcome("nothing", owned.marked), _removed(owned, noise, "0 queries: white noise until it is not found")]
    for answer, told in ((_z, "the p-value is told"), (_decision, "only yes or no is told")):
        start = owned.marked if answer is _z else _doubtful(owned)
        estimate = np.zeros(owned.marked.shape, np.float32)
        for number in range(max(counts) // 2):
            probe = _probe(owned, number)
            estimate += probe * (answer(owned, _added(start, probe)) - answer(owned, _added(start, -probe)))
            if 2 * (number + 1) in counts:
                outcomes.append(_removed(owned, estimate, f"{2 * (number + 1):,} queries, {told}"))
    return outcomes


def _readable(picture: Picture) -> Case:
    """As large as the p-value still tells something: above some z it is the smallest number there is."""
    for side in _SIDES:
        owned = case(picture, side)
        if _z(owned, owned.marked) < MOST - 2:
            break
    return owned


def _z(owned: Case, rgb: U8) -> float:
    return z_of(-np.log10(max(detect(rgb, owned.registration).p_value, 5e-324)))


def _decision(owned: Case, rgb: U8) -> float:
    return float(detect(rgb, owned.registration).p_value <= MAX_P)


def _probe(owned: Case, number: int) -> F32:
    """What another key changes in this picture, stronger."""
    other = embed(owned.marked, key=key_of(f"probe {number} of {owned.name}"))[0]
    return np.asarray(_PROBE * (other.astype(np.float32) - owned.marked), np.float32)


def _doubtful(owned: Case) -> U8:
    """The copy under so much noise that it is just found still, where the answer to a small change is open."""
    noise = np.random.default_rng(0).normal(size=owned.marked.shape).astype(np.float32)
    amount = least(lambda deviation: not _decision(owned, _added(owned.marked, deviation * noise)), 256.0)
    return _added(owned.marked, amount * (1 - 1e-3) * noise)


def _removed(owned: Case, estimate: F32, what: str) -> Outcome:
    """The estimate taken off as weakly as suffices."""
    unit = estimate / max(float(np.sqrt(np.mean(estimate**2))), 1e-9)
    amount = least(lambda deviation: not _decision(owned, _added(owned.marked, -deviation * unit)), 64.0)
    return owned.outcome(what, _added(owned.marked, -amount * unit))


def _added(rgb: U8, change: F32) -> U8:
    return np.asarray(np.clip(np.rint(rgb + change), 0, 255), np.uint8)
