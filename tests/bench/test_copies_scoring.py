"""Recall at zero false positives and micro-AP of answers that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bench.copies.scoring import measure, micro_ap
from matcher.pixels import F64

_NONE = -np.inf
# three queries that show the pictures 0, 1 and 2, and a distractor
_SHOWS = np.array([0, 1, 2, -1])


def _answers(*rows: tuple[float, float, float]) -> F64:
    return np.array(rows, float)


def test_all_found_and_nothing_else() -> None:
    found = measure(_answers((9, _NONE, _NONE), (_NONE, 8, _NONE), (_NONE, _NONE, 7), (_NONE, _NONE, _NONE)), _SHOWS)
    assert (found.recall, found.micro_ap, found.false) == (1.0, 1.0, 0)


def test_what_does_not_score_above_a_distractor_is_not_found() -> None:
    found = measure(_answers((9, _NONE, _NONE), (_NONE, 5, _NONE), (_NONE, _NONE, 7), (5, _NONE, _NONE)), _SHOWS)
    assert found.recall == pytest.approx(2 / 3)
    assert (found.threshold, found.false) == (5, 1)
    assert found.micro_ap == pytest.approx((1 + 1 + 3 / 4) / 3)


def test_a_cross_pair_is_a_negative() -> None:
    found = measure(_answers((1, 6, _NONE), (_NONE, 5, _NONE), (_NONE, _NONE, 7), (_NONE, _NONE, _NONE)), _SHOWS)
    assert found.recall == pytest.approx(1 / 3)


def test_nothing_named() -> None:
    found = measure(np.full((4, 3), _NONE), _SHOWS)
    assert (found.recall, found.micro_ap, found.false) == (0.0, 0.0, 0)


@given(arrays(np.float64, (4, 3), elements=st.sampled_from([_NONE, 1.0, 2.0, 3.0])))
def test_micro_ap_is_the_mean_precision_at_each_positive(scores: F64) -> None:
    cells = [(scores[q, r], q == r) for q in range(4) for r in range(3) if np.isfinite(scores[q, r])]
    ranked = sorted(cells, key=lambda cell: (-cell[0], cell[1]))
    precisions = [sum(right for _, right in ranked[: n + 1]) / (n + 1) for n, (_, right) in enumerate(ranked) if right]
    assert micro_ap(scores, _SHOWS) == pytest.approx(sum(precisions) / 3)
