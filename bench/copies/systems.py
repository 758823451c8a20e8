"""filigrane as everybody uses it: `filigrane.Index`, asked on a few processes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import faiss
import numpy as np

import filigrane
import matcher.copies
from bench.copies.queries import Query
from bench.copies.sets import Picture, read
from bench.copies.work import spread
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


def filigrane_index(registered: Sequence[Picture], cache: Path) -> Path:
    """A saved index of these pictures, made unless this code made it before."""
    path = cache / f"index-{_version(registered)}"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        index = filigrane.Index()
        for picture in registered:
            index.add(picture.name, picture.load())
        index.save(path)
    return path


def _version(registered: Sequence[Picture]) -> str:
    sources = sorted(Path(matcher.copies.__path__[0]).rglob("*.[pcn]*"))
    said = hashlib.sha256(b"".join(path.read_bytes() for path in sources if path.suffix in (".py", ".c", ".npz")))
    said.update(Path(str(filigrane.__file__)).read_bytes())
    said.update(repr([picture.name for picture in registered]).encode())
    return said.hexdigest()[:16]


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
