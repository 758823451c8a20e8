"""Different photos of one scene: how many are called a copy of each other, which must be none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2

from bench.copies.run import Run
from bench.copies.sets import Picture, folder, sample
from bench.copies.work import spread
from matcher.copies.features import Fingerprint, fingerprint, registered
from matcher.copies.geometry import MODELS
from matcher.copies.verdict import judge

_STEREO: Final = ("motorcycle_left.png", "motorcycle_right.png")
"""Bundled with scikit-image: one scene from two places."""


class _Task(NamedTuple):
    registered: Picture
    others: Sequence[Picture]


Verdicts = Mapping[str, str | None]
"""By transform; None where no geometry stands out of chance."""


def run(run: Run) -> dict[str, Any]:
    """Each photo against each other one of its scene, with every transform."""
    scenes = _scenes(run.same_scene)
    tasks = [_Task(photo, [other for other in scene if other is not photo]) for scene in scenes for photo in scene]
    found = spread(_verdicts, tasks, "photos of one scene, each against the others")
    said = [row for rows in found for row in rows]
    copies = [(names, model) for names, verdicts in said for model in MODELS if verdicts[model] == "copy"]
    return {
        "scenes": len(scenes),
        "pairs": len(said),
        "located": sum(any(verdicts.values()) for _, verdicts in said),
        "verdicts": {model: sum(verdicts[model] is not None for _, verdicts in said) for model in MODELS},
        "copies": [f"{names}, {model}" for names, model in copies],
    }


def _scenes(given: Path | None) -> list[list[Picture]]:
    """Folders within the folder are scenes of their own, as are the photos in itself; without one, a pair that everybody has."""
    if given is None:
        return [[Picture(name, partial(sample, name)) for name in _STEREO]]
    places = [place for place in (given, *sorted(given.iterdir())) if place.is_dir() and any(p.is_file() for p in place.iterdir())]
    return [folder(place) for place in places]


def _verdicts(task: _Task) -> list[tuple[str, Verdicts]]:
    """Of each pair, which it is and what is said."""
    cv2.setNumThreads(1)
    known = registered(task.registered.load())
    return [(f"{task.registered.name} in {other.name}", _said(known, fingerprint(other.load()))) for other in task.others]


def _said(known: Fingerprint, query: Fingerprint) -> Verdicts:
    verdicts = {model: judge(known, query, model) for model in MODELS}
    return {model: None if verdict is None else verdict.name for model, verdict in verdicts.items()}


def markdown(result: Mapping[str, Any]) -> list[str]:
    lines: Sequence[str] = result["copies"]
    models = ", ".join(f"{count} by {model}" for model, count in result["verdicts"].items())
    return [
        f"{result['pairs']} ordered pairs from {result['scenes']} scenes; {result['located']} are located ({models}). "
        f"Called a copy: {len(lines)}.",
        *(f"- {line}" for line in lines),
    ]
