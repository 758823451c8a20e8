"""Failures to look at: the worst misses and the highest-scoring false candidates, the registered picture beside what was asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from bench.copies.queries import Query
from bench.copies.scoring import Shows, negatives, positives
from bench.copies.sets import Picture
from bench.copies.systems import Answers, described
from matcher.pixels import U8

SHOWN: Final = 10
_SIDE: Final = 420


def show_failures(folder: Path, registered: Sequence[Picture], queries: Sequence[Query], shows: Shows, answers: Answers) -> None:
    """Writes `miss-NN.png` and `false-NN.png`; what an earlier run left there is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
    for number, row in enumerate(_misses(queries, shows, answers)[:SHOWN]):
        picture, query = registered[int(shows[row])], queries[row]
        said = f"{query.attack}, {picture.name}: {described(answers.all[row, shows[row]])}"
        _beside(picture.load(), query.rgb(), said).save(folder / f"miss-{number:02}.png")
    for number, (row, column) in enumerate(_false(shows, answers)[:SHOWN]):
        picture, query = registered[column], queries[row]
        said = f"{picture.name} in {query.shows or 'a distractor'}, {query.attack}: {described(answers.all[row, column])}"
        _beside(picture.load(), query.rgb(), said).save(folder / f"false-{number:02}.png")


def _misses(queries: Sequence[Query], shows: Shows, answers: Answers) -> list[int]:
    """Rows without the right copy: worst are those under attacks that most other pictures survive."""
    asked = np.flatnonzero(shows >= 0)
    found = np.isfinite(positives(answers.copies, shows))
    attacks = np.array([queries[int(row)].attack for row in asked])
    survival = {attack: found[attacks == attack].mean() for attack in set(attacks.tolist())}
    return sorted((int(row) for row in asked[~found]), key=lambda row: -survival[queries[row].attack])


def _false(shows: Shows, answers: Answers) -> list[tuple[int, int]]:
    """(row, column) of the negatives that were named, the surest first."""
    wrong = negatives(answers.all, shows)
    best = np.argsort(-wrong, axis=None, kind="stable")[:SHOWN]
    return [(int(n) // wrong.shape[1], int(n) % wrong.shape[1]) for n in best if np.isfinite(wrong.flat[n])]


def _beside(left: U8, right: U8, said: str) -> Image.Image:
    sheet = Image.new("RGB", (2 * _SIDE, _SIDE + 24), "white")
    for column, rgb in enumerate((left, right)):
        image = Image.fromarray(np.ascontiguousarray(rgb))
        image.thumbnail((_SIDE - 4, _SIDE))
        sheet.paste(image, (column * _SIDE, 0))
    ImageDraw.Draw(sheet).text((4, _SIDE + 4), said, "black", font_size=14)
    return sheet
