"""Recall at zero false positives and micro-AP, from what a system answered.

Answers are one score for each query (row) and registered picture (column), higher is surer, minus infinity where it named none. A positive
is the cell of a query and the picture that it shows; every other cell is a negative: distractors, and the cross pairs of attacked pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.pixels import F64

Shows = npt.NDArray[np.intp]
"""For each query the column of the picture that it shows; -1 for a distractor."""


@dataclass(frozen=True, slots=True)
class Recall:
    """`recall`: share of the positives above `threshold`, the highest score of a negative; `micro_ap`: average precision over all cells
    ranked together; `false`: how many negatives were named at all."""

    recall: float
    micro_ap: float
    threshold: float
    false: int


def positives(scores: F64, shows: Shows) -> F64:
    """The scores of the queries that show something, in their order."""
    asked = np.flatnonzero(shows >= 0)
    return np.asarray(scores[asked, shows[asked]])


def negatives(scores: F64, shows: Shows) -> F64:
    """A copy of the scores without those of the positives (minus infinity)."""
    rest = scores.copy()
    asked = np.flatnonzero(shows >= 0)
    rest[asked, shows[asked]] = -np.inf
    return rest


def measure(scores: F64, shows: Shows) -> Recall:
    right, wrong = positives(scores, shows), negatives(scores, shows)
    threshold = float(wrong.max(initial=-np.inf))
    return Recall(share_above(right, threshold), micro_ap(scores, shows), threshold, int(np.isfinite(wrong).sum()))


def share_above(right: F64, threshold: float) -> float:
    return float((right > threshold).mean()) if len(right) else float("nan")


def micro_ap(scores: F64, shows: Shows) -> float:
    """Average precision over all pairs (Douze et al. 2021, section 3.3); among equal scores the wrong ones come first."""
    right = np.sort(positives(scores, shows))[::-1]
    found = right[np.isfinite(right)]
    wrong = negatives(scores, shows)
    wrong = np.sort(wrong[np.isfinite(wrong)])
    above = len(wrong) - np.searchsorted(wrong, found, side="left")
    rank = np.arange(1, len(found) + 1)
    return float((rank / (rank + above)).sum() / len(right)) if len(right) else float("nan")
