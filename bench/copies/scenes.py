"""Different photos of one scene: how many are called a copy of each other, which must be none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2

from bench.copies.run import Run
from bench.copies.sets import Picture, folder, sample
from bench.copies.work import spread
from matcher.copies.features import fingerprint, registered
from matcher.copies.geometry import MODELS
from matcher.copies.verdict import judge

_STEREO: Final = ("motorcycle_left.png", "motorcycle_right.png")
"""Bundled with scikit-image: one scene from two places."""


class _Pair(NamedTuple):
    registered: Picture
    query: Picture


def run(run: Run) -> dict[str, Any]:
    """Each photo against each other one of its scene, with every transform."""
    scenes = _scenes(run.same_scene)
    pairs = [_Pair(*pair) for scene in scenes for pair in permutations(scene, 2)]
    said = dict(zip(pairs, spread(_verdicts, pairs, "pairs of one scene"), strict=True))
    copies = [(pair, model) for pair, verdicts in said.items() for model in MODELS if verdicts[model] == "copy"]
    located = [verdicts for verdicts in said.values() if any(verdicts.values())]
    return {
        "scenes": len(scenes),
        "pairs": len(pairs),
        "located": len(located),
        "verdicts": {model: sum(verdicts[model] is not None for verdicts in said.values()) for model in MODELS},
        "copies": [f"{pair.registered.name} in {pair.query.name}, {model}" for pair, model in copies],
    }


def _scenes(given: Path | None) -> list[list[Picture]]:
    """Folders within the folder are scenes of their own, as are the photos in itself; without one, a pair that everybody has."""
    if given is None:
        return [[Picture(name, partial(sample, name)) for name in _STEREO]]
    places = [place for place in (given, *sorted(given.iterdir())) if place.is_dir() and any(p.is_file() for p in place.iterdir())]
    return [folder(place) for place in places]


def _verdicts(pair: _Pair) -> dict[str, str | None]:
    """By transform; None where no geometry stands out of chance."""
    cv2.setNumThreads(1)
    known, query = registered(pair.registered.load()), fingerprint(pair.query.load())
    return {model: verdict.name if (verdict := judge(known, query, model)) is not None else None for model in MODELS}


def markdown(result: Mapping[str, Any]) -> list[str]:
    lines: Sequence[str] = result["copies"]
    models = ", ".join(f"{count} by {model}" for model, count in result["verdicts"].items())
    return [
        f"{result['pairs']} ordered pairs from {result['scenes']} scenes; {result['located']} are located ({models}). "
        f"Called a copy: {len(lines)}.",
        *(f"- {line}" for line in lines),
    ]
