"""Trains what `matcher/copies/look_cells.npz` holds: middles of the cells that `LookIndex` sorts looks into.

    python -m bench.copies.look_cells PHOTOS DISTRACTORS

They are learnt on parts of free pictures (none that is held out) and of drawn ones, each with its mirror.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import faiss
import numpy as np
from numpy.random import Generator

from bench.copies import flat
from bench.copies.sets import sets
from matcher.copies import look_index
from matcher.copies.features import MIRROR
from matcher.copies.look import look
from matcher.pixels import F32, U8, gray, resized

_PARTS: Final = 12
_CELLS: Final = 1024


def parts(image: U8, draw: Generator) -> Iterator[U8]:
    """The picture and rectangles of it, as other pictures might have been framed."""
    yield image
    height, width = image.shape
    for share in draw.uniform(0.3, 0.9, _PARTS):
        h, w = max(1, int(height * share)), max(1, int(width * share))
        top, left = int(draw.integers(0, height - h + 1)), int(draw.integers(0, width - w + 1))
        yield image[top : top + h, left : left + w]


def looks(photos: Path | None, distractors: Path | None) -> F32:
    """n x 128, of all training pictures."""
    draw = np.random.default_rng(0)
    found = sets(photos, distractors, "dev")
    pictures = [*found.registered, *found.distractors, *flat.pictures()]
    grays = (resized(gray(picture.load()), 256) for picture in pictures)
    rows = [row for image in grays for part in parts(image, draw) if (row := look(part)).size]
    seen = np.stack(rows)
    return np.concatenate([seen, seen[:, MIRROR]]).astype(np.float32)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("photos", type=Path, nargs="?")
    given.add_argument("distractors", type=Path, nargs="?")
    arguments = given.parse_args()
    seen = looks(arguments.photos, arguments.distractors)
    means = faiss.Kmeans(128, _CELLS, niter=20, seed=0, min_points_per_centroid=1)
    means.train(seen)
    np.savez_compressed(look_index.CELLS, cells=np.asarray(means.centroids).round().clip(0, 255).astype(np.uint8))
    print(f"{len(seen)} looks, mean distance to the cell's middle {np.sqrt(np.asarray(means.obj)[-1] / len(seen)) / 512:.3f}")


if __name__ == "__main__":
    main()
