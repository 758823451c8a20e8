"""How little is seen of the mark: PSNR and SSIM of every picture, and sheets of the worst to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from bench.watermark.gallery import show_marks
from bench.watermark.methods import PAYLOAD, ZERO_BIT
from bench.watermark.run import Run
from bench.watermark.trials import Trials

_SHOWN: Final = 5


def run(run: Run) -> dict[str, Any]:
    found = run.attempt(ZERO_BIT)
    worst = sorted(found.marked, key=lambda quality: quality.ssim)[:_SHOWN]
    names = {quality.picture for quality in worst}
    show_marks(run.out / "watermark" / f"{run.part.replace(' ', '-')}-quality", [p for p in run.pictures if p.name in names])
    return {"rows": [_row(found), _row(run.attempt(PAYLOAD))]}


def _row(found: Trials) -> dict[str, Any]:
    psnr, ssim = ([getattr(quality, what) for quality in found.marked] for what in ("psnr", "ssim"))
    worst = sorted(found.marked, key=lambda quality: quality.ssim)[:_SHOWN]
    return {
        "method": found.method,
        "psnr": {"mean": round(float(np.mean(psnr)), 2), "median": round(float(np.median(psnr)), 2), "worst": round(min(psnr), 2)},
        "ssim": {"mean": round(float(np.mean(ssim)), 4), "median": round(float(np.median(ssim)), 4), "worst": round(min(ssim), 4)},
        "lowest": [{"picture": q.picture, "psnr": round(q.psnr, 1), "ssim": round(q.ssim, 4)} for q in worst],
    }


def markdown(result: Mapping[str, Any]) -> list[str]:
    lines = ["| method | PSNR, dB: mean | median | lowest | SSIM: mean | median | lowest |", "|---|---|---|---|---|---|---|"]
    for row in result["rows"]:
        cells = [f"{row['psnr'][k]:.1f}" for k in ("mean", "median", "worst")] + [
            f"{row['ssim'][k]:.4f}" for k in ("mean", "median", "worst")
        ]
        lines.append(f"| {row['method']} | {' | '.join(cells)} |")
    lowest = "; ".join(f"{q['picture']} {q['ssim']:.4f} at {q['psnr']:.1f} dB" for q in result["rows"][0]["lowest"])
    return [*lines, "", f"SSIM is the mean of the three channels (Gaussian window of deviation 1.5). Lowest: {lowest}."]
