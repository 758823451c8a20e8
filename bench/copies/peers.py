"""The perceptual hashes that are used today: PDQ, ImageHash, OpenCV's img_hash. Two pictures are as near as their hashes (Hamming).

Nothing here imports OpenCV before `see_contrib`: img_hash is only in OpenCV's contrib wheel, which carries the module cv2 too and therefore
lies in a folder of its own, which only the processes that hash look into.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from bench.copies.work import spread

Bits = npt.NDArray[np.bool_]
PDQ_THRESHOLD: Final = 31
"""Of 256 bits: what its authors recommend (ThreatExchange, hashing.pdf)."""
PDQ: Final = "PDQ"
DIHEDRAL: Final = "PDQ, 8 dihedral forms of the query"


class Hashes(NamedTuple):
    """Bits of one picture by system; several rows where it is hashed in several forms, of which the nearest counts."""

    bits: Mapping[str, Bits]


def see_contrib(folder: str) -> None:
    """From now on `import cv2` means the contrib wheel in that folder."""
    sys.path.insert(0, folder)


def hash_all(paths: Sequence[Path], contrib: Path) -> list[Hashes]:
    """Of each file; what an earlier run left beside a file is taken."""
    return spread(hashes, paths, "peers", see_contrib, str(contrib))


def hashes(path: Path) -> Hashes:
    stored = path.with_name(f"{path.stem}.{_version()}.npz")
    if not stored.exists():
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        np.savez(stored, **{name: bits for make in (_pdq, _imagehash, _opencv) for name, bits in make(image).items()})  # type: ignore[arg-type]
    with np.load(stored) as file:
        return Hashes({name: file[name] for name in file.files})


@lru_cache
def _version() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]


def _pdq(image: Image.Image) -> dict[str, Bits]:
    import pdqhash

    upright, _ = pdqhash.compute(np.asarray(image))
    forms, _ = pdqhash.compute_dihedral(np.asarray(image))
    return {PDQ: np.asarray([upright], bool), DIHEDRAL: np.asarray(forms, bool)}


def _imagehash(image: Image.Image) -> dict[str, Bits]:
    import imagehash

    made: Mapping[str, Callable[[Image.Image], Any]] = {"pHash": imagehash.phash, "dHash": imagehash.dhash, "wHash": imagehash.whash}
    return {f"ImageHash {name}": np.asarray([make(image).hash.ravel()], bool) for name, make in made.items()}


def _opencv(image: Image.Image) -> dict[str, Bits]:
    import cv2

    if not hasattr(cv2, "img_hash"):
        raise ModuleNotFoundError("img_hash is in opencv-contrib-python-headless, which make bench-copies puts where --contrib says")
    bgr = np.ascontiguousarray(np.asarray(image)[..., ::-1])
    made = {"PHash": cv2.img_hash.pHash, "BlockMean": cv2.img_hash.blockMeanHash, "MarrHildreth": cv2.img_hash.marrHildrethHash}
    return {f"OpenCV {name}": np.asarray(np.unpackbits(make(bgr).ravel())[None], bool) for name, make in made.items()}


def distances(registered: Sequence[Hashes], queries: Sequence[Hashes], name: str) -> npt.NDArray[np.float64]:
    """Queries x registered: differing bits, of the query's nearest form; the registered picture has its upright one."""
    mine = np.stack([h.bits[name][0] for h in registered]).astype(np.float32)
    asked = np.stack([h.bits[name] for h in queries]).astype(np.float32)
    both = asked.sum(-1)[..., None] + mine.sum(-1) - 2 * asked @ mine.T
    return np.asarray(both.min(axis=1), np.float64)
