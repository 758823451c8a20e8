from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.repo.distinct import REGISTERS, estimate, seen


@given(st.lists(st.text(max_size=5), max_size=40), st.randoms(use_true_random=False))
def test_order_and_repetition_change_nothing(things: list[str], draw: random.Random) -> None:
    shuffled = draw.sample(things + things, 2 * len(things))
    assert seen(seen(b"", things[:5]), shuffled) == seen(b"", things)


def test_a_few_are_counted_nearly_exactly() -> None:
    assert [estimate(seen(b"", map(str, range(count)))) for count in range(10)] == list(range(10))


@pytest.mark.parametrize("count", [1_000, 5_000, 6_000, 50_000, 300_000])
def test_many_are_counted_within_four_standard_errors(count: int) -> None:
    sketch = seen(b"", (f"http://site.example/{number}" for number in range(count)))
    assert len(sketch) == REGISTERS
    assert abs(estimate(sketch) - count) <= 4 * 0.023 * count
