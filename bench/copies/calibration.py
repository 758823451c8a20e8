"""What the score says beside what is counted: pictures that show nothing registered are attacked and compared with what is."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np

import filigrane
from bench.copies import plots
from bench.copies.attacks import ATTACKS, compressed
from bench.copies.queries import QUALITY
from bench.copies.run import Run
from bench.copies.sets import Picture
from bench.copies.systems import filigrane_index
from bench.copies.work import spread
from matcher.copies.correspondences import correspond
from matcher.copies.features import Fingerprint, fingerprint
from matcher.copies.geometry import Model, agree

MODEL: Final[Model] = "affine"
"""What crawled pictures are judged by."""
EACH: Final = 12
"""Attacks on each distractor."""
LEAST: Final = -1.5
EXPONENTS: Final = tuple(float(e) for e in np.arange(-1.0, 4.01, 0.25))
"""Thresholds of the score: 10^-e false matches are predicted for each query."""
_registered: list[Fingerprint]


class _Task(NamedTuple):
    picture: Picture
    attacks: tuple[str, ...]


def run(run: Run) -> dict[str, Any]:
    """Geometry alone: every registered picture is a hypothesis, none is left out by the index before, or by the thumbnails after."""
    count = 3 if run.quick else EACH
    names = cycle(ATTACKS)
    tasks = [_Task(picture, tuple(islice(names, count))) for picture in run.sets.distractors]
    index = filigrane_index(run.sets.registered, run.cache)
    found = spread(_scores, tasks, "attacked negatives", _open, index)
    scores = np.array([score for of_task in found for of_query in of_task for score in of_query])
    queries = sum(len(of_task) for of_task in found)
    counted = [int((scores >= exponent).sum()) for exponent in EXPONENTS]
    return {
        "queries": queries,
        "registered": len(run.sets.registered),
        "model": MODEL,
        "predicted": [10.0**-e for e in EXPONENTS],
        "counted": counted,
        "observed": [count / queries for count in counted],
        "highest": round(float(scores.max(initial=LEAST)), 2),
    }


def _open(index: Path) -> None:
    global _registered
    cv2.setNumThreads(1)
    _registered = [print_ for _, print_ in filigrane.Index.load(index)._copies.items()]


def _scores(task: _Task) -> list[list[float]]:
    """Of each attacked picture, those above `LEAST`."""
    rgb, draw = task.picture.load(), np.random.default_rng(0)  # nothing is drawn for a file
    files = (compressed(ATTACKS[name](rgb, task.picture.name), draw, kind="JPEG", quality=QUALITY) for name in task.attacks)
    return [_agreements(fingerprint(file)) for file in files]


def _agreements(query: Fingerprint) -> list[float]:
    tests = 2 * len(_registered)
    found = [agree(pairs, known.small, query.small, MODEL, tests, LEAST) for known in _registered for pairs in correspond(known, query)]
    return [geometry.score for geometry in found if geometry is not None]


def plot(result: Mapping[str, Any], folder: Path) -> None:
    seen = [(p, o) for p, o in zip(result["predicted"], result["observed"], strict=True) if o]
    if seen:
        plots.calibration([p for p, _ in seen], [o for _, o in seen], folder / "copies-calibration.svg")


def markdown(result: Mapping[str, Any]) -> list[str]:
    rows = [
        f"| {exponent:g} | {predicted:.3g} | {observed:.3g} | {counted} | {observed / predicted:.2g} |"
        for exponent, predicted, observed, counted in zip(
            EXPONENTS, result["predicted"], result["observed"], result["counted"], strict=True
        )
        if exponent == int(exponent)
    ]
    return [
        f"{result['queries']:,} attacked pictures that show nothing registered, each compared with {result['registered']} registered ones "
        f"and their mirrors, {result['model']}; the highest score was {result['highest']}.",
        "",
        "| score | predicted a query | observed a query | counted | observed / predicted |",
        "|---|---|---|---|---|",
        *rows,
    ]
