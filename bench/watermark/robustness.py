"""How well the mark survives each attack: the share found at p <= 1e-9, and how far from that it lies. The worst pairs, to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from bench.watermark import plots
from bench.watermark.attacks import EXTREMES
from bench.watermark.gallery import show_worst
from bench.watermark.methods import ZERO_BIT
from bench.watermark.run import Run
from bench.watermark.significance import z_of
from bench.watermark.trials import Trial

_WORST: Final = 5


def run(run: Run) -> dict[str, Any]:
    found = run.attempt(ZERO_BIT)
    worst = sorted(found.tried, key=lambda trial: (trial.log_p or 0, trial.attack))
    show_worst(run.out / "watermark" / f"{run.part.replace(' ', '-')}-worst", run.pictures, worst[:_WORST])
    return {
        "pictures": len(run.pictures),
        "suite": round(found.share(), 4),
        "attacks": [_row(name, [t for t in found.tried if t.attack == name]) for name in run.attacks],
        "missed": [_said(trial) for trial in worst if not trial.right],
        "worst": [_said(trial) for trial in worst[: 2 * _WORST]],
    }


def _row(attack: str, tried: Sequence[Trial]) -> dict[str, Any]:
    z = [z_of(trial.log_p or 0) for trial in tried]
    return {
        "attack": attack,
        "extreme": attack in EXTREMES,
        "tpr": round(float(np.mean([trial.right for trial in tried])), 4),
        "z": [round(value, 1) for value in sorted(z)],
        "not_aligned": sum(not trial.aligned for trial in tried),
    }


def _said(trial: Trial) -> dict[str, Any]:
    return {"picture": trial.picture, "attack": trial.attack, "log_p": round(trial.log_p or 0, 1), "aligned": trial.aligned}


def plot(result: Mapping[str, Any], folder: Any) -> None:
    plots.z_per_attack(result["attacks"], folder / "watermark-z.svg")


def markdown(result: Mapping[str, Any]) -> list[str]:
    lines = [
        f"{result['pictures']} pictures; over the suite {result['suite']:.4f} are found at p <= 1e-9.",
        "",
        "| attack | found | z: lowest | lower tenth | median | not aligned |",
        "|---|---|---|---|---|---|",
        *(_line(row) for row in result["attacks"]),
        "",
        f"Missed: {len(result['missed'])}; the lowest: {'; '.join(map(_pair, result['worst'])) or 'none'}.",
    ]
    return lines


def _line(row: Mapping[str, Any]) -> str:
    low, tenth, median = np.quantile(row["z"], [0, 0.1, 0.5])
    name = f"*{row['attack']}*" if row["extreme"] else row["attack"]
    return f"| {name} | {row['tpr']:.3f} | {low:.1f} | {tenth:.1f} | {median:.1f} | {row['not_aligned']} |"


def _pair(said: Mapping[str, Any]) -> str:
    return f"{said['picture']} {said['attack']} (p 1e-{said['log_p']:.1f}{'' if said['aligned'] else ', not aligned'})"
