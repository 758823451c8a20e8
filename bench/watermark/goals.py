"""The goals of the watermark beside what was measured of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bench.parts import Goal, Results
from bench.watermark.methods import ZERO_BIT


def _worst(results: Results) -> str:
    rows = [row for row in results["robustness"]["attacks"] if not row["extreme"]]
    worst = min(rows, key=lambda row: row["tpr"])
    return f"{worst['tpr']:.3f} {worst['attack']}"


def _attack(results: Results, name: str) -> float:
    return float({row["attack"]: row["tpr"] for row in results["robustness"]["attacks"]}[name])


def _seen(results: Results, figure: str, which: str) -> float:
    rows: Mapping[str, Mapping[str, Any]] = {row["method"]: row for row in results["quality"]["rows"]}
    return float(rows[ZERO_BIT][figure][which])


def _embed(results: Results, how: str) -> float:
    """Of the largest size."""
    return float(results["costs"]["embed"][-1][how])


def _detect(results: Results, what: str) -> float:
    return float(results["costs"]["detect"][what])


def _sigma(results: Results) -> float:
    """The largest, of all thresholds."""
    return max(abs(float(row["sigma"])) for row in results["alarms"]["keys"]["rows"])


def _pairs(results: Results) -> int:
    return int(results["alarms"]["keys"]["trials"])


GOALS: Final = (
    Goal("found at p <= 1e-9, all 42 attacks", ">= .998", lambda r: r["robustness"]["suite"], lambda v: v >= 0.998),
    Goal("the worst attack", ">= .98", _worst, lambda v: float(v.split()[0]) >= 0.98),
    Goal("PSNR, mean, dB", ">= 48", lambda r: _seen(r, "psnr", "mean"), lambda v: v >= 48),
    Goal("PSNR, lowest, dB", ">= 48", lambda r: _seen(r, "psnr", "worst"), lambda v: v >= 48),
    Goal("SSIM, mean", ">= .995", lambda r: _seen(r, "ssim", "mean"), lambda v: v >= 0.995),
    Goal("SSIM, lowest", ">= .985", lambda r: _seen(r, "ssim", "worst"), lambda v: v >= 0.985),
    Goal("24 bits read without a fault, all 42 attacks", ">= .995", lambda r: r["payload"]["suite"], lambda v: v >= 0.995),
    Goal("another number read", "0", lambda r: r["payload"]["wrong"], lambda v: v == 0),
    Goal("wrong keys tried", ">= 1,000,000", _pairs, lambda v: v >= 1_000_000),
    Goal("their p-values, deviation from theory at any threshold", "<= 3 sigma", _sigma, lambda v: v <= 3),
    Goal("alarms in unmarked originals and in copies with another key", "0", lambda r: r["alarms"]["keys"]["alarms"], lambda v: v == 0),
    Goal("the same through `detect_all`", "0", lambda r: r["alarms"]["whole"]["alarms"], lambda v: v == 0),
    Goal("crop to 5 %", ">= .95", lambda r: _attack(r, "crop_5"), lambda v: v >= 0.95),
    Goal("thumbnail of 100 pixels", ">= .9", lambda r: _attack(r, "thumbnail_100px"), lambda v: v >= 0.9),
    Goal("embed, s per MP of 12 MP", "<= .02", lambda r: _embed(r, "array"), lambda v: v <= 0.02),
    Goal("embed with JPEG in and out, s per MP of 12 MP", "<= .05", lambda r: _embed(r, "jpeg"), lambda v: v <= 0.05),
    Goal("detect, s for each query", "<= .15", lambda r: _detect(r, "query"), lambda v: v <= 0.15),
    Goal("detect, s for each further candidate", "<= .03", lambda r: max(_detect(r, "alike"), _detect(r, "other")), lambda v: v <= 0.03),
    Goal("detect, s for each further key", "<= .005", lambda r: _detect(r, "key"), lambda v: v <= 0.005),
    Goal("LMK file, bytes at most", "<= 45,000", lambda r: r["costs"]["registration"]["most"], lambda v: v <= 45_000),
    Goal("transactional LMK file, bytes at most", "<= 512", lambda r: r["costs"]["transactional"]["most"], lambda v: v <= 512),
)
