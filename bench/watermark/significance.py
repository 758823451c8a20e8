"""p-values and the statistics of a standard normal variable that they belong to."""

from __future__ import annotations

from statistics import NormalDist
from typing import Final

MOST: Final = 37.0
"""Above that a p-value is smaller than the smallest number of double precision."""


def z_of(log_p: float) -> float:
    """The z whose upper tail is 10^-log_p; MOST at most, 0 where p is a half or more."""
    return min(MOST, max(0.0, -NormalDist().inv_cdf(10.0**-log_p))) if 0 < log_p < 307 else MOST * (log_p > 0)
