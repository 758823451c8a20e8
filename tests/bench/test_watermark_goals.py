"""The goals of the watermark: what was measured, the worst attack by name, and nothing of parts that did not run."""

from __future__ import annotations

from bench.parts import goal_table
from bench.watermark.goals import GOALS


def test_the_worst_attack_is_none_of_the_extremes() -> None:
    rows = [
        {"attack": "jpeg_10", "extreme": False, "tpr": 0.97},
        {"attack": "gray", "extreme": False, "tpr": 1.0},
        {"attack": "crop_5", "extreme": True, "tpr": 0.96},
        {"attack": "thumbnail_100px", "extreme": True, "tpr": 0.2},
    ]
    lines = goal_table(GOALS, {"robustness": {"suite": 0.999, "attacks": rows}})
    assert lines[2:] == [
        "| found at p <= 1e-9, all 42 attacks | >= .998 | 0.999 | yes |",
        "| the worst attack | >= .98 | 0.970 jpeg_10 | **no** |",
        "| crop to 5 % | >= .95 | 0.96 | yes |",
        "| thumbnail of 100 pixels | >= .9 | 0.2 | **no** |",
    ]


def test_false_alarms_may_deviate_either_way() -> None:
    keys = {"trials": 1_200_000, "alarms": 0, "rows": [{"sigma": 1.0}, {"sigma": -3.5}]}
    lines = goal_table(GOALS, {"alarms": {"keys": keys, "whole": {"alarms": 0}}})
    assert "| their p-values, deviation from theory at any threshold | <= 3 sigma | 3.5 | **no** |" in lines
