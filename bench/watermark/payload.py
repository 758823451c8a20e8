"""The same with a number of 24 bits in each mark: how often it is read without a fault, and how often another one is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.watermark.attacks import EXTREMES
from bench.watermark.methods import PAYLOAD
from bench.watermark.run import Run


def run(run: Run) -> dict[str, Any]:
    found = run.attempt(PAYLOAD)
    attacks = {name: round(found.share(name), 4) for name in run.attacks}
    return {
        "pictures": len(run.pictures),
        "suite": round(found.share(), 4),
        "attacks": attacks,
        "wrong": sum(trial.wrong for trial in found.tried),
        "queries": len(found.tried),
        "psnr": round(float(np.mean([quality.psnr for quality in found.marked])), 2),
    }


def markdown(result: Mapping[str, Any]) -> list[str]:
    missed = sorted((share, name) for name, share in result["attacks"].items() if share < 1)
    rows = [f"| {f'*{name}*' if name in EXTREMES else name} | {share:.3f} |" for share, name in missed]
    return [
        f"{result['pictures']} pictures, {result['queries']:,} queries; over the suite {result['suite']:.4f} are read without "
        f"a fault; another number was read {result['wrong']} times. Mean PSNR {result['psnr']:.1f} dB.",
        "",
        *(["| attack | all 24 bits right |", "|---|---|", *rows, ""] if rows else []),
        f"All {'others' if rows else 'attacks'}: 1.000.",
    ]
