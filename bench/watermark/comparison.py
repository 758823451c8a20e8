"""The peers beside filigrane, on the same pictures, in the same run: 32 bits of theirs, 24 of ours with a p-value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.watermark import plots
from bench.watermark.methods import PAYLOAD, SMALL_SIDE, STRENGTHS, ZERO_BIT
from bench.watermark.peers import PEERS, RIVAGAN
from bench.watermark.run import Run
from bench.watermark.trials import Trials

_PICTURES: Final = 20
_SMALL: Final = 6
"""Of those that are brought to `SMALL_SIDE`."""
_SHOWN: Final = ("jpeg_50", "jpeg_30", "resize_50", "crop_25", "rotate_5", "perspective", "page", "posted_twice")


def run(run: Run) -> dict[str, Any]:
    at_full = [ZERO_BIT, PAYLOAD, *(f"{ZERO_BIT}, strength x {times:g}" for times in STRENGTHS)]
    at_full += [name for name in PEERS if name != RIVAGAN] if run.peers else []
    small = [f"{PAYLOAD}, {SMALL_SIDE} px", *([RIVAGAN] if run.peers else [])]
    asked = [(name, run.few(_PICTURES, 2)) for name in at_full] + [(name, run.few(_SMALL, 1)) for name in small]
    return {"rows": [_row(run.attempt(name, pictures, run.suite), run.suite) for name, pictures in asked]}


def _row(found: Trials, attacks: Sequence[str]) -> dict[str, Any]:
    return {
        "method": found.method,
        "pictures": len(found.marked),
        "suite": round(found.share(), 4),
        "wrong": sum(trial.wrong for trial in found.tried),
        "psnr": round(float(np.mean([q.psnr for q in found.marked])), 2),
        "ssim": round(float(np.mean([q.ssim for q in found.marked])), 4),
        "embed_s_per_mp": round(sum(q.seconds for q in found.marked) / sum(q.megapixels for q in found.marked), 3),
        "detect_s_per_mp": round(sum(t.seconds for t in found.tried) / sum(t.megapixels for t in found.tried), 3),
        "attacks": {name: round(found.share(name), 4) for name in attacks},
    }


def plot(result: Mapping[str, Any], folder: Path) -> None:
    plots.quality_and_robustness(result["rows"], folder / "watermark-quality.svg")


def markdown(result: Mapping[str, Any]) -> list[str]:
    shown = [name for name in _SHOWN if name in result["rows"][0]["attacks"]]
    lines = [
        f"| method | pictures | PSNR | SSIM | suite | {' | '.join(shown)} | embed, s per MP | detect, s per MP |",
        "|---" * (7 + len(shown)) + "|",
    ]
    for row in result["rows"]:
        cells = " | ".join(f"{row['attacks'][name]:.2f}" for name in shown)
        lines.append(
            f"| {row['method']} | {row['pictures']} | {row['psnr']:.1f} | {row['ssim']:.4f} | {row['suite']:.3f} | {cells} "
            f"| {row['embed_s_per_mp']:.3f} | {row['detect_s_per_mp']:.3f} |"
        )
    return [*lines, "", "All attacks:", "", *_attacks(result["rows"])]


def _attacks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"| attack | {' | '.join(row['method'] for row in rows)} |", "|---" * (1 + len(rows)) + "|"]
    for attack in rows[0]["attacks"]:
        cells = (f"{row['attacks'][attack]:.2f}" for row in rows)
        lines.append(f"| {attack} | {' | '.join(cells)} |")
    return lines
