from __future__ import annotations

from math import erfc, exp, log, sqrt, ulp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcher.watermark.significance import log_tail, p_value


@given(st.floats(-30, 36))
def test_it_is_the_tail_of_the_normal_distribution(z: float) -> None:
    assert exp(log_tail(z)) == pytest.approx(erfc(z / sqrt(2)) / 2, rel=1e-7, abs=0)


def test_beyond_what_a_float_holds_it_goes_on() -> None:
    # Abramowitz and Stegun, table 26.2: -log10 of the tail
    assert log_tail(50) / log(10) == pytest.approx(-544.96634, abs=1e-4)
    assert log_tail(500) / log(10) == pytest.approx(-54289.90830, abs=1e-3)


@given(st.floats(-10, 400), st.floats(1e-3, 10))
def test_it_falls(z: float, by: float) -> None:
    assert log_tail(z + by) <= log_tail(z)


def test_every_try_counts() -> None:
    assert p_value(6.0, 1) == pytest.approx(9.866e-10, rel=1e-3, abs=0)
    assert p_value(6.0, 1000) == pytest.approx(1000 * p_value(6.0, 1))
    assert p_value(0.0, 5) == 1.0
    assert p_value(8.2, 1 << 24) < 5e-9


def test_p_is_never_nothing() -> None:
    assert p_value(1000.0, 1) == ulp(0.0) > 0
    # 2 ** 24 tries lift what is just below the smallest float above it
    assert p_value(38.6, 1) < p_value(38.6, 1 << 24) < 1e-315
