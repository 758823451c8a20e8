"""The goals of copy detection beside what was measured of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bench.parts import Goal, Results


def _system(results: Results, name: str) -> Mapping[str, Any]:
    systems: Mapping[str, Mapping[str, Any]] = {row["system"]: row for row in results["recall"]["systems"]}
    return systems[name]


def _worst(results: Results) -> str:
    attacks = _system(results, "filigrane, affine")["attacks"]
    worst = min(attacks, key=attacks.get)
    return f"{attacks[worst]:.3f} {worst}"


def _ratio(results: Results, stage: str) -> float:
    return float({row["stage"]: row for row in results["costs"]["rows"]}[stage]["ratio"])


def _calibrated(results: Results) -> list[float]:
    """Lowest and highest."""
    found = results["calibration"]
    ratios = [o / p for p, o in zip(found["predicted"], found["observed"], strict=True) if 0.0009 < p < 0.11]
    return [round(min(ratios), 2), round(max(ratios), 2)]


def _registration(results: Results) -> float:
    """Real time, in seconds."""
    rows = {row["crawled"]: row for row in results["crawled"]["rows"]}
    return round(float(rows[1_000_000]["register_wall_s"]), 1)


def _index(results: Results, pictures: int, figure: str) -> float:
    rows = {row["pictures"]: row for row in (*results["index"]["filled"], *results["index"]["added"])}
    return float(rows[pictures][figure])


def _visible(results: Results) -> float:
    """The longest, in ms."""
    return float(max(max(row["added_ms"], row["removed_ms"]) for row in results["index"]["added"]))


GOALS: Final = (
    Goal(
        "recall at 0 false positives, affine + mirror", ">= .99", lambda r: _system(r, "filigrane, affine")["recall"], lambda v: v >= 0.99
    ),
    Goal("the same, textured pictures", ">= .995", lambda r: _system(r, "filigrane, affine")["textured"]["recall"], lambda v: v >= 0.995),
    Goal("worst attack", ">= .95", _worst, lambda v: float(v.split()[0]) >= 0.95),
    Goal("recall with scale + mirror, no rotations", ">= .99", lambda r: _system(r, "filigrane, scale")["recall"], lambda v: v >= 0.99),
    Goal("false copies, distractors and cross pairs", "0", lambda r: _system(r, "filigrane, affine")["false"], lambda v: v == 0),
    Goal("photos of one scene called copies", "0", lambda r: len(r["scenes"]["copies"]), lambda v: v == 0),
    Goal(
        "false matches observed for each predicted, .1 to .001 a query", "1/3 to 3", _calibrated, lambda v: min(v) >= 1 / 3 and max(v) <= 3
    ),
    Goal("flat pictures, plain attacks", ">= .90", lambda r: r["flat"]["said_copy"], lambda v: v >= 0.90),
    Goal("flat pictures, false copies among them", "0", lambda r: r["flat"]["false_copies"], lambda v: v == 0),
    Goal("processor time of a picture that is no copy", "<= 2.0x decoding", lambda r: _ratio(r, UNKNOWN), lambda v: v <= 2),
    Goal("processor time of a copy", "<= 2.0x decoding", lambda r: _ratio(r, KNOWN), lambda v: v <= 2),
    Goal("search among 1 M registered, ms", "<= 1", lambda r: _index(r, 1_000_000, "search_ms"), lambda v: v <= 1),
    Goal("search among 10 M registered, ms", "<= 2", lambda r: _index(r, 10_000_000, "search_ms"), lambda v: v <= 2),
    Goal("memory per registered picture, bytes", "<= 2,000", lambda r: _index(r, 100_000, "bytes_per_picture"), lambda v: v <= 2000),
    Goal("add or delete visible, ms", "<= 100", _visible, lambda v: v <= 100),
    Goal("a new registration among a million crawled pictures", "<= 60 s", _registration, lambda v: v <= 60),
    Goal("bad input: wrong answers", "0", lambda r: r["hostile"]["wrong"], lambda v: v == 0),
)
KNOWN: Final = "**all, from the bytes**: a copy"
UNKNOWN: Final = "**all, from the bytes**: no copy"
