"""Which pictures are registered, attacked and asked for: folders, or pictures that everybody has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image

from filigrane.demo import pictures as generated
from matcher.pixels import U8

Part = Literal["dev", "held out"]
_SUFFIXES: Final = {".jpg", ".jpeg", ".png", ".webp"}
COMPANY: Final = ("chelsea.png", "coffee.png", "rocket.jpg")
"""Bundled with scikit-image; stands beside others in collages and over them, and is never registered nor asked for."""
_BUNDLED: Final = (
    *("astronaut.png", "camera.png", "coins.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png"),
    *("moon.png", "retina.jpg", "brick.png", "grass.png", "gravel.png", "cell.png", "clock_motion.png"),
)
_SCENES: Final = (generated.mountains, generated.marble, generated.city, generated.stained_glass)


@dataclass(frozen=True, slots=True)
class Picture:
    """`name` is unique in its set and seeds the attacks; `load` reads or makes the pixels, H x W x 3."""

    name: str
    load: Callable[[], U8]


@dataclass(frozen=True, slots=True)
class Sets:
    """`registered` are attacked too; `distractors` are nobody's copies."""

    registered: Sequence[Picture]
    distractors: Sequence[Picture]


def sets(photos: Path | None, distractors: Path | None, part: Part = "dev") -> Sets:
    """The pictures of two folders, one part of each: of the names in order every third photo and every sixth distractor is held out, never
    looked at while anything is tuned. Without folders free pictures, which are no part of any split."""
    return Sets(
        _part(folder(photos), part, 3) if photos else free(0, 8),
        _part(folder(distractors), part, 6) if distractors else free(100, 20, bundled=False),
    )


def folder(path: Path) -> list[Picture]:
    """All pictures of a folder, by name. Raises FileNotFoundError where there are none."""
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES)
    if not found:
        raise FileNotFoundError(f"no pictures in {path}")
    return [Picture(p.name, partial(read, p)) for p in found]


def _part(pictures: Sequence[Picture], part: Part, modulus: int) -> list[Picture]:
    held_out = part == "held out"
    return [picture for index, picture in enumerate(pictures) if (index % modulus == modulus - 1) == held_out]


def free(seed: int, each: int, *, bundled: bool = True) -> list[Picture]:
    """Generated scenes, `each` of every kind, and scikit-image's photos."""
    made = [Picture(f"{make.__name__}-{seed + n}", partial(make, seed + n)) for n in range(each) for make in _SCENES]
    return [*(Picture(name, partial(sample, name)) for name in (_BUNDLED if bundled else ())), *made]


def read(path: Path) -> U8:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def sample(filename: str) -> U8:
    """A picture bundled with scikit-image."""
    with as_file(files("skimage") / "data" / filename) as path:
        return read(path)
