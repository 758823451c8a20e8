"""The fast look while something is tuned: what each attack leaves of the mark, on the screen alone."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.copies.sets import Picture
from bench.copies.work import tell
from bench.watermark.attacks import ATTACKS, EXTREMES
from bench.watermark.quality import psnr, ssim
from matcher.watermark.detect import MAX_P, detect
from matcher.watermark.embed import embed

KEY: Final = bytes(range(32))
SUITE: Final = {**ATTACKS, **EXTREMES}
_WORST: Final = 25
_TELLS: Final = 10


@dataclass(frozen=True, slots=True)
class Trial:
    """`log_p`: -log10 of the p-value; `seconds`: of the detection; `aligned`: whether the picture was found at all."""

    picture: str
    attack: str
    log_p: float
    aligned: bool
    right: bool
    seconds: float

    @property
    def marked(self) -> bool:
        return self.log_p >= -math.log10(MAX_P)


@dataclass(frozen=True, slots=True)
class Marked:
    picture: str
    psnr: float
    ssim: float
    seconds: float
    megapixels: float


def look(pictures: Sequence[Picture], attacks: Iterable[str], payload: int | None = None) -> tuple[list[Marked], list[Trial]]:
    """Each picture marked, attacked in each way, and looked at."""
    marked, trials = [], []
    for number, picture in enumerate(pictures, 1):
        quality, found = _picture(picture, attacks, payload)
        marked.append(quality)
        trials.extend(found)
        if number % _TELLS == 0:
            tell(f"{number} of {len(pictures)} pictures, {sum(not t.marked for t in trials)} of {len(trials)} missed")
    return marked, trials


def _picture(picture: Picture, attacks: Iterable[str], payload: int | None) -> tuple[Marked, list[Trial]]:
    rgb = picture.load()
    begun = time.perf_counter()
    marked, registration = embed(rgb, key=KEY, payload=payload)
    quality = Marked(picture.name, psnr(rgb, marked), ssim(rgb, marked), time.perf_counter() - begun, rgb.shape[0] * rgb.shape[1] / 1e6)
    trials = []
    for name in attacks:
        query = SUITE[name](marked, picture.name)
        begun = time.perf_counter()
        found = detect(query, registration)
        seconds = time.perf_counter() - begun
        log_p = -math.log10(max(found.p_value, 5e-324))
        trials.append(Trial(picture.name, name, log_p, found.transform is not None, found.payload == payload, seconds))
    return quality, trials


def table(marked: Sequence[Marked], trials: Sequence[Trial]) -> list[str]:
    """One row for each attack, the suite, the quality, and the pairs that were missed or nearly so."""
    by_attack: dict[str, list[Trial]] = {}
    for trial in trials:
        by_attack.setdefault(trial.attack, []).append(trial)
    lines = ["attack | TPR | payload | -log10 p: median | lowest | not aligned", "---|---|---|---|---|---"]
    lines += [_row(name, found) for name, found in by_attack.items()]
    lines.append(_row("**suite**", [t for t in trials if t.attack in ATTACKS]))
    worst = sorted(trials, key=lambda t: t.log_p)[:_WORST]
    lines += ["", "lowest: " + ", ".join(f"{t.picture} {t.attack} {t.log_p:.1f}{'' if t.aligned else ' not aligned'}" for t in worst)]
    return [*lines, "", *_quality(marked), _speed(marked, trials)]


def _row(name: str, found: Sequence[Trial]) -> str:
    if not found:
        return name
    log_p = [t.log_p for t in found]
    away = sum(not t.aligned for t in found)
    right = np.mean([t.marked and t.right for t in found])
    return f"{name} | {np.mean([t.marked for t in found]):.4f} | {right:.4f} | {np.median(log_p):.0f} | {min(log_p):.1f} | {away}"


def _quality(marked: Sequence[Marked]) -> list[str]:
    figures: Mapping[str, list[float]] = {"PSNR": [m.psnr for m in marked], "SSIM": [m.ssim for m in marked]}
    lines = [f"{name}: mean {np.mean(v):.4f}, median {np.median(v):.4f}, lowest {min(v):.4f}" for name, v in figures.items()]
    worst = sorted(marked, key=lambda m: m.ssim)[:5]
    return [*lines, "lowest SSIM: " + ", ".join(f"{m.picture} {m.ssim:.4f} {m.psnr:.1f} dB" for m in worst)]


def _speed(marked: Sequence[Marked], trials: Sequence[Trial]) -> str:
    embed_s = sum(m.seconds for m in marked) / sum(m.megapixels for m in marked)
    detect_s = np.mean([t.seconds for t in trials])
    return f"embed with registration and quality {embed_s:.3f} s per MP, detect {detect_s:.3f} s per query"
