"""What one run measures, and where it keeps things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.copies.run import spread_out
from bench.copies.sets import Part, Picture
from bench.watermark.attacks import ATTACKS
from bench.watermark.trials import Trials, attempt


@dataclass(frozen=True, slots=True)
class Run:
    """`attacks`: of the suite and the extremes, by name; `cache`: survives the run, everything in it is named after what made it; `out`:
    for JSON, tables and pictures; `plots`: for what the documentation shows; `contrib`: a folder with the peers; `peers`: whether they
    are asked."""

    pictures: Sequence[Picture]
    part: Part
    attacks: tuple[str, ...]
    quick: bool
    cache: Path
    out: Path
    plots: Path
    contrib: Path
    peers: bool = True

    @property
    def stem(self) -> str:
        """How the files of this run begin."""
        return "watermark" if self.part == "dev" else "watermark-held-out"

    @property
    def suite(self) -> tuple[str, ...]:
        """The attacks without the extremes."""
        return tuple(name for name in self.attacks if name in ATTACKS)

    def few(self, count: int, quick: int) -> list[Picture]:
        """So many of the pictures, evenly spread; in a quick run `quick` of them."""
        return spread_out(self.pictures, min(count, quick) if self.quick else count)

    def attempt(self, method: str, pictures: Sequence[Picture] | None = None, attacks: Sequence[str] | None = None) -> Trials:
        """By default all pictures under all attacks."""
        return attempt(method, pictures or self.pictures, attacks or self.attacks, self.cache, self.contrib)
