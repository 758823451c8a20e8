"""Marks to look at: the marked picture, the difference ten times as strong, and the query that was asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from bench.copies.sets import Picture
from bench.watermark.methods import ZERO_BIT, methods
from bench.watermark.quality import psnr
from bench.watermark.trials import Trial, attacked
from matcher.pixels import U8

_SIDE: Final = 560
_TIMES: Final = 10
_ZOOM: Final = 3


def show_worst(folder: Path, pictures: Sequence[Picture], worst: Sequence[Trial]) -> None:
    """Writes `worst-NN.png`; what an earlier run left there is removed."""
    _empty(folder)
    by_name = {picture.name: picture for picture in pictures}
    for number, trial in enumerate(worst):
        rgb = by_name[trial.picture].load()
        marked = _marked(rgb, trial.picture)
        said = f"{trial.picture}, {trial.attack}: -log10 p {trial.log_p or 0:.1f}{'' if trial.aligned else ', not aligned'}"
        sheet(said, marked, difference(rgb, marked), attacked(marked, trial.picture, trial.attack)).save(folder / f"worst-{number:02}.png")


def show_marks(folder: Path, pictures: Sequence[Picture]) -> None:
    """Writes `<number>-whole.png` and `<number>-smooth.png`: the smoothest part of it, enlarged, where a mark is seen first."""
    _empty(folder)
    for number, picture in enumerate(pictures):
        rgb = picture.load()
        marked = _marked(rgb, picture.name)
        said = f"{picture.name}: {psnr(rgb, marked):.1f} dB; original, marked, difference x {_TIMES}"
        sheet(said, rgb, marked, difference(rgb, marked)).save(folder / f"{number:02}-whole.png")
        parts = (_enlarged(image[smoothest(rgb)]) for image in (rgb, marked, difference(rgb, marked)))
        sheet(said, *parts).save(folder / f"{number:02}-smooth.png")


def difference(original: U8, marked: U8) -> U8:
    """About middle gray."""
    return np.asarray(np.clip(128 + _TIMES * (marked.astype(int) - original), 0, 255), np.uint8)


def smoothest(rgb: U8) -> tuple[slice, slice]:
    """Where the square of a fifth of the shorter side with the smallest deviation lies."""
    side = max(16, min(rgb.shape[:2]) // 5)
    rows, columns = (range(0, length - side + 1, max(1, side // 2)) for length in rgb.shape[:2])
    squares = [(slice(y, y + side), slice(x, x + side)) for y in rows for x in columns]
    return min(squares, key=lambda where: float(rgb[where].std()))


def sheet(said: str, *images: U8) -> Image.Image:
    """Side by side, with a line below."""
    made = Image.new("RGB", (len(images) * _SIDE, _SIDE + 24), "white")
    for column, rgb in enumerate(images):
        image = Image.fromarray(np.ascontiguousarray(rgb))
        image.thumbnail((_SIDE - 4, _SIDE))
        made.paste(image, (column * _SIDE, 0))
    ImageDraw.Draw(made).text((4, _SIDE + 4), said, "black", font_size=14)
    return made


def _marked(rgb: U8, name: str) -> U8:
    return methods()[ZERO_BIT].mark(rgb, name).rgb


def _enlarged(rgb: U8) -> U8:
    return np.kron(rgb, np.ones((_ZOOM, _ZOOM, 1), np.uint8))


def _empty(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):
        old.unlink()
