"""filigrane as everybody uses it: `filigrane.Index`, asked on a few processes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import faiss
import numpy as np

import filigrane
import matcher.copies
from bench.copies.queries import Query, stem
from bench.copies.sets import Picture, read
from bench.copies.work import spread
from matcher import pixels
from matcher.copies import features
from matcher.copies.features import Fingerprint
from matcher.pixels import F64

_SAME_SCENE: Final = -1e6
_loaded: filigrane.Index


class Answers(NamedTuple):
    """`copies`: scores of the verdicts "copy"; `all`: with those of "same scene" below all of them. Queries x registered."""

    copies: F64
    all: F64


def described(score: float) -> str:
    """What a cell of `Answers.all` says."""
    if not np.isfinite(score):
        return "not named"
    return f"copy, {score:.1f}" if score > _SAME_SCENE / 2 else f"same scene, {score - _SAME_SCENE:.1f}"


class _Ask(NamedTuple):
    path: Path
    transform: filigrane.Transform
    similar: bool


class _Register(NamedTuple):
    picture: Picture
    path: Path


def filigrane_index(registered: Sequence[Picture], cache: Path) -> Path:
    """A saved index of these pictures, made unless this code made it before."""
    folder = cache / f"registered-{_version()}"
    names = hashlib.sha256(repr([stem(picture) for picture in registered]).encode()).hexdigest()[:16]
    path = folder / f"{names}.index"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        index = filigrane.Index()
        tasks = [_Register(picture, folder / stem(picture)) for picture in registered]
        for picture, data in zip(registered, spread(_fingerprint, tasks, "registered"), strict=True):
            index._copies.add(picture.name, Fingerprint.from_bytes(data))  # what Index.add does, on several processes
        index.save(path)
    return path


def _fingerprint(task: _Register) -> bytes:
    if not task.path.exists():
        cv2.setNumThreads(1)
        draft = task.path.with_suffix(".draft")
        draft.write_bytes(features.registered(task.picture.load()).to_bytes())
        draft.replace(task.path)
    return task.path.read_bytes()


@lru_cache
def _version() -> str:
    parts = sorted(path for path in Path(matcher.copies.__path__[0]).rglob("*") if path.suffix in (".py", ".c", ".h", ".npz"))
    sources = [*parts, Path(str(pixels.__file__))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def ask_filigrane(
    index: Path, registered: Sequence[Picture], queries: Sequence[Query], transform: filigrane.Transform, *, similar: bool = False
) -> Answers:
    """With `similar` the score is the rank, negated: 0 for the first, and nothing is said to be a copy."""
    column = {picture.name: number for number, picture in enumerate(registered)}
    shape = len(queries), len(registered)
    copies, everything = np.full(shape, -np.inf), np.full(shape, -np.inf)
    asked = [_Ask(query.path, transform, similar) for query in queries]
    for row, hits in enumerate(spread(_search, asked, f"filigrane, {transform}", _open, index)):
        for rank, (name, verdict, score) in enumerate(hits):
            everything[row, column[name]] = -rank if similar else score if verdict == "copy" else _SAME_SCENE + score
            if verdict == "copy":
                copies[row, column[name]] = score
    return Answers(copies, everything)


def _open(index: Path) -> None:
    global _loaded
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(1)
    _loaded = filigrane.Index.load(index)


def _search(ask: _Ask) -> list[tuple[str, str | None, float]]:
    hits = _loaded.search(read(ask.path), transform=ask.transform, similar=ask.similar)
    return [(str(hit.media_id), hit.verdict, hit.score) for hit in hits]
