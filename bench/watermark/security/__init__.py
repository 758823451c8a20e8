"""What attackers can do, measured: each is given what it may know, and the mark is looked for in what it leaves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np

from bench.copies.queries import stem
from bench.copies.sets import Picture
from bench.copies.work import spread
from bench.watermark import plots
from bench.watermark.keeping import kept, version
from bench.watermark.methods import ZERO_BIT, methods
from bench.watermark.run import Run
from bench.watermark.security import collusion, copying, insider, oracle, removal
from bench.watermark.security.case import Outcome

_PICTURES: Final = 12
_FEW: Final = 3
"""Pictures for the attackers that ask thousands of times."""
_COLLUDERS: Final = "copies with different keys"
_HEAD: Final = ("| what is done | PSNR, dB | found at p <= 1e-9 | z: median | lowest |", "|---|---|---|---|---|")
_WITH_ONE_KEY: Final = 40
Attacker = Callable[[Picture], Sequence[Outcome]]


class _Task(NamedTuple):
    attacker: Attacker
    picture: Picture
    kept: Path


def run(run: Run) -> dict[str, Any]:
    pictures, few = run.few(_PICTURES, 1), run.few(_FEW, 1)
    others = run.few(_WITH_ONE_KEY, 4)
    asked: list[tuple[str, Attacker, Sequence[Picture]]] = [
        ("one marked copy", removal.attack, pictures),
        ("the registration", insider.attack, pictures),
        (_COLLUDERS, collusion.quick if run.quick else collusion.attack, pictures),
        ("a marked copy, to put its mark elsewhere", copying.attack, pictures),
        (f"{len(others)} pictures marked with one key", partial(copying.one_key, others), few),
        ("a detector to ask", oracle.quick if run.quick else oracle.attack, few),
    ]
    return {"pictures": len(pictures), "attackers": {name: _asked(run, name, attacker, chosen) for name, attacker, chosen in asked}}


def _asked(run: Run, name: str, attacker: Attacker, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """What the attacker does to each picture is kept: a run that was cut goes on there."""
    code = version(sorted(Path(__path__[0]).glob("*.py")), methods()[ZERO_BIT].version)
    folder = run.cache / f"security-{code}" / re.sub("[^a-z0-9]+", "-", f"{name} quick" if run.quick else name)
    tasks = [_Task(attacker, picture, folder / f"{stem(picture)}.json") for picture in pictures]
    return _table(spread(_attacked, tasks, f"security: {name}"))


def _attacked(task: _Task) -> list[Outcome]:
    cv2.setNumThreads(1)
    return [Outcome(*row) for row in kept(task.kept, partial(task.attacker, task.picture))]


def _table(outcomes: Sequence[Sequence[Outcome]]) -> list[dict[str, Any]]:
    """One row for each thing that was done, over the pictures."""
    by_what: dict[str, list[Outcome]] = {}
    for outcome in (outcome for one in outcomes for outcome in one):
        by_what.setdefault(outcome.what, []).append(outcome)
    return [_row(what, found) for what, found in by_what.items()]


def _row(what: str, found: Sequence[Outcome]) -> dict[str, Any]:
    psnr = [outcome.psnr for outcome in found if outcome.psnr is not None]
    z = [outcome.z for outcome in found]
    return {
        "what": what,
        "pictures": len(found),
        "found": round(float(np.mean([outcome.found for outcome in found])), 3),
        "psnr": round(float(np.mean(psnr)), 1) if psnr else None,
        "z_median": round(float(np.median(z)), 1),
        "z_lowest": round(min(z), 1),
    }


def plot(result: Mapping[str, Any], folder: Path) -> None:
    rows = [row for row in result["attackers"][_COLLUDERS] if " copies, " in row["what"]]
    named = [(*row["what"].split(" copies, "), row["z_median"]) for row in rows]
    plots.collusion([(int(copies), how, z) for copies, how, z in named], folder / "watermark-collusion.svg")


def markdown(result: Mapping[str, Any]) -> list[str]:
    said = f"{result['pictures']} pictures, a megapixel at most; PSNR of what the attacker is left with, against the unmarked original."
    parts = [["", f"Who has **{name}**:", "", *lines] for name, lines in tables(result).items()]
    return [said, *(line for part in parts for line in part)]


def tables(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """One for each attacker, named by what he has."""
    return {name: [*_HEAD, *map(_line, rows)] for name, rows in result["attackers"].items()}


def _line(row: Mapping[str, Any]) -> str:
    psnr = "" if row["psnr"] is None else f"{row['psnr']:.1f}"
    return f"| {row['what']} | {psnr} | {row['found']:.2f} | {row['z_median']:.1f} | {row['z_lowest']:.1f} |"
