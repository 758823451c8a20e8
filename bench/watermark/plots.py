"""Plots for the documentation: small SVG files, the same for the same figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.copies.plots import COLORS, MARKS, figure, save
from bench.watermark.significance import MOST


def z_per_attack(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A row for each attack, the weakest on top: median and middle half as a box, each picture as a dot."""
    ordered = sorted(rows, key=lambda row: (-float(np.median(row["z"])), row["attack"]))
    made, axes = figure(7, 1.0 + 0.19 * len(ordered))
    dice = np.random.default_rng(0)
    for place, row in enumerate(ordered):
        axes.plot(row["z"], place + dice.uniform(-0.3, 0.3, len(row["z"])), ".", color=COLORS[0], ms=2, alpha=0.5)
    axes.boxplot(
        [row["z"] for row in ordered],
        positions=range(len(ordered)),
        orientation="horizontal",
        widths=0.7,
        showfliers=False,
        showcaps=False,
        whis=0,
        medianprops={"color": COLORS[1]},
        boxprops={"lw": 0.8},
    )
    axes.axvline(6, color=COLORS[1], lw=1, ls="--")
    axes.set_yticks(range(len(ordered)), [f"({row['attack']})" if row["extreme"] else row["attack"] for row in ordered])
    axes.set_xlim(-0.5, MOST + 0.8)
    axes.set_xlabel(f"z of each picture; dashed: p = 1e-9; {MOST:.0f} and more: p below double precision")
    axes.grid(axis="x", alpha=0.3)
    save(made, path)


def quality_and_robustness(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """PSNR and the share of the suite that is read rightly: filigrane at several strengths as a curve, each peer as a point."""
    made, axes = figure(6.5, 3.8)
    curve = sorted((row["psnr"], row["suite"]) for row in rows if row["method"] == "filigrane" or "strength" in row["method"])
    axes.plot(*zip(*curve, strict=True), "-o", color=COLORS[0], ms=5, label="filigrane: found at p <= 1e-9")
    others = [row for row in rows if "strength" not in row["method"] and row["method"] != "filigrane"]
    for number, row in enumerate(others):
        own = row["method"].startswith("filigrane")
        color, mark = COLORS[0 if own else 1 + number % 4], MARKS[number % len(MARKS)]
        axes.plot(row["psnr"], row["suite"], mark, color=color, ms=7, mfc="none" if own else color, label=row["method"])
    axes.set_ylim(-0.02, 1.03)
    axes.set_xlabel("PSNR of the marked picture, dB")
    axes.set_ylabel("read rightly, all attacks")
    axes.grid(alpha=0.3)
    made.legend(loc="outside lower center", ncols=2, frameon=False)
    save(made, path)


def alarms(thresholds: Sequence[float], observed: Sequence[float], path: Path) -> None:
    """Share of wrong keys whose p-value is at most the threshold."""
    made, axes = figure(4.5, 3.5)
    axes.loglog(thresholds, thresholds, color=COLORS[3], lw=1, label="as the p-value says")
    seen = [(t, o) for t, o in zip(thresholds, observed, strict=True) if o]
    axes.loglog(*zip(*seen, strict=True), "o", color=COLORS[0], ms=4, label="counted")
    axes.set_xlabel("p-value at most")
    axes.set_ylabel("share of wrong keys")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save(made, path)


def collusion(rows: Sequence[tuple[int, str, float]], path: Path) -> None:
    """(copies mixed, how, z of the colluder that is traced least)."""
    made, axes = figure(5.5, 3.5)
    for number, how in enumerate(dict.fromkeys(how for _, how, _ in rows)):
        mine = [(copies, z) for copies, named, z in rows if named == how]
        axes.plot(*zip(*mine, strict=True), f"-{MARKS[number % 5]}", color=COLORS[number % 5], ms=5, label=how)
    axes.axhline(6, color=COLORS[1], lw=1, ls="--")
    axes.set_xlabel("copies mixed")
    axes.set_ylabel("z of the colluder traced least, median")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    save(made, path)
