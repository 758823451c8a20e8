"""What one run measures, and where it keeps things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.copies.sets import Part, Picture, Sets


@dataclass(frozen=True, slots=True)
class Run:
    """`sample`: how many of the registered pictures are attacked (0: all); `attacks`: which, of the own suite; `cache`: survives the run,
    everything in it is named after what made it; `out`: for JSON, tables and pictures; `plots`: for what the documentation shows;
    `contrib`: a folder with OpenCV's contrib wheel; `same_scene`: a folder with photos of one scene, or with such folders; `peers`:
    whether they are asked too."""

    sets: Sets
    part: Part
    attacks: tuple[str, ...]
    sample: int
    quick: bool
    cache: Path
    out: Path
    plots: Path
    contrib: Path
    same_scene: Path | None
    peers: bool = True

    @property
    def stem(self) -> str:
        """How the files of this run begin."""
        return "copies" if self.part == "dev" else "copies-held-out"

    @property
    def attacked(self) -> Sets:
        """The pictures that are attacked, evenly spread over those registered; and all distractors."""
        return Sets(spread_out(self.sets.registered, self.sample), self.sets.distractors)


def spread_out(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """`count` of them, evenly spread; all for 0."""
    if not count or count >= len(pictures):
        return list(pictures)
    return [pictures[number * len(pictures) // count] for number in range(count)]
