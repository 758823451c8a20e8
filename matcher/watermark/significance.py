"""From a statistic to a p-value."""

from __future__ import annotations

from math import erfc, exp, log, log1p, pi, sqrt, ulp
from typing import Final

_FAR: Final = 30.0


def log_tail(z: float) -> float:
    """The natural logarithm of the chance that a standard normal number is `z` or more, for any finite z."""
    if z < _FAR:
        return log(erfc(z / sqrt(2.0)) / 2)
    # Abramowitz and Stegun 26.2.12; what is left out is below 15 / z^6
    return -z * z / 2 - log(z * sqrt(2 * pi)) + log1p(-1 / z**2 + 3 / z**4)


def p_value(z: float, hypotheses: float) -> float:
    """The chance that the best of so many tries reaches `z` (Bonferroni); never 0: the smallest float stands for all that is less."""
    return min(1.0, max(exp(log(hypotheses) + log_tail(z)), ulp(0.0)))
