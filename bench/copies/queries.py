"""What is asked: attacked pictures and distractors, written as JPEG files, as they would be found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from bench.copies import attacks
from bench.copies.sets import Picture, Sets, read
from bench.copies.work import spread
from matcher.pixels import U8

QUALITY: Final = 90
"""Of the file that an attacked picture is found in."""
Suite = Callable[[str, U8, str], U8]
"""(attack's name, picture, picture's name) -> attacked picture; importable by name."""


@dataclass(frozen=True, slots=True)
class Query:
    """A file that somebody asks for. `shows`: the registered picture in it; None for a distractor, whose `attack` is "none"."""

    path: Path
    attack: str
    shows: str | None

    def rgb(self) -> U8:
        return read(self.path)


class _Task(NamedTuple):
    suite: Suite
    picture: Picture
    names: tuple[str, ...]
    folder: Path


def own(attack: str, rgb: U8, picture: str) -> U8:
    """The suite of 32 attacks."""
    return attacks.ATTACKS[attack](rgb, picture)


def ask(sets: Sets, suite: Suite, names: Sequence[str], cache: Path) -> list[Query]:
    """Every registered picture under every attack, then the distractors. Files that are in `cache` from an earlier run are taken."""
    tasks = [_Task(suite, picture, tuple(names), cache / _version(suite)) for picture in sets.registered]
    tasks += [_Task(plain, picture, ("none",), cache / "plain") for picture in sets.distractors]
    made = spread(_written, tasks, f"attacked pictures ({suite.__name__})")
    return [
        Query(path, name, None if task.suite is plain else task.picture.name)
        for task, paths in zip(tasks, made, strict=True)
        for name, path in paths.items()
    ]


def plain(attack: str, rgb: U8, picture: str) -> U8:
    """As it is."""
    return rgb


def _written(task: _Task) -> Mapping[str, Path]:
    folder = task.folder / stem(task.picture)
    paths = {name: folder / f"{name}.jpg" for name in task.names}
    missing = [name for name, path in paths.items() if not path.exists()]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        rgb = task.picture.load()
        for name in missing:
            _write(paths[name], task.suite(name, rgb, task.picture.name))
    return paths


def _write(path: Path, rgb: U8) -> None:
    draft = path.with_suffix(".draft")
    Image.fromarray(np.ascontiguousarray(rgb)).save(draft, "JPEG", quality=QUALITY)
    draft.replace(path)


def stem(picture: Picture) -> str:
    """What files of this picture are called, whatever its name and wherever it comes from."""
    return hashlib.sha256(repr((picture.name, picture.load)).split(" at 0x")[0].encode()).hexdigest()[:16]


@lru_cache
def _version(suite: Suite) -> str:
    source = Path(suite.__code__.co_filename).read_bytes() + Path(str(attacks.__file__)).read_bytes()
    return f"{suite.__name__}-{hashlib.sha256(source).hexdigest()[:12]}"
