"""The table of goals tells what was reached from what was not, and leaves out what was not measured."""

from __future__ import annotations

from bench.copies.goals import GOALS, UNKNOWN
from bench.parts import goal_table


def test_reached_and_missed() -> None:
    lines = goal_table(GOALS, {"costs": {"rows": [{"stage": UNKNOWN, "ratio": 1.9}]}, "flat": {"said_copy": 0.8, "false_copies": 0}})
    assert lines[2:] == [
        "| flat pictures, plain attacks | >= .90 | 0.8 | **no** |",
        "| flat pictures, false copies among them | 0 | 0 | yes |",
        "| processor time of a picture that is no copy | <= 2.0x decoding | 1.9 | yes |",
    ]
