"""filigrane in Python: mark pictures, detect marks, find copies. Pictures are uint8 sRGB arrays, H x W x 3.

marked, registration = filigrane.embed(rgb)
filigrane.detect(found, registration).marked

index = filigrane.Index()
index.add("harbour", rgb)
index.search(found)
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

if TYPE_CHECKING:
    from matcher.copies.geometry import Model
    from matcher.copies.index import CopyIndex
    from matcher.pixels import F64, U8
    from matcher.watermark.detect import Detection, detect
    from matcher.watermark.embed import embed
    from matcher.watermark.registration import Registration

__all__ = ["Detection", "Hit", "Index", "IndexInvalid", "Registration", "detect", "embed"]

_LAZY: Final = {
    "embed": "matcher.watermark.embed",
    "detect": "matcher.watermark.detect",
    "Detection": "matcher.watermark.detect",
    "Registration": "matcher.watermark.registration",
}

Transform = Literal["scale", "affine", "perspective"]


def __getattr__(name: str) -> Any:
    # the image libraries take a second to load, which the command line does not owe
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'filigrane' has no attribute {name!r}")


class IndexInvalid(ValueError):
    """The file is no index of a version that this program reads."""


@dataclass(frozen=True, slots=True, eq=False)
class Hit:
    """`score`: -log10 of the expected number of false matches; `transform`: 3 x 3, registered -> query, in pixels; `overlap`: share of the
    registered picture that the query shows (0..1). With `similar` nothing was verified: verdict, transform and overlap are
    None, and score says how alike: -log10 of how many registered pictures would be as much so by chance."""

    media_id: str | int
    score: float
    verdict: Literal["copy", "same scene"] | None
    transform: F64 | None
    mirrored: bool
    overlap: float | None


class Index:
    """Registered pictures, searched by their look. Thread-safe; what was added or removed counts at once."""

    def __init__(self) -> None:
        from matcher.copies.index import CopyIndex

        self._copies: CopyIndex[str | int] = CopyIndex()

    def __len__(self) -> int:
        return len(self._copies)

    def add(self, media_id: str | int, rgb: U8) -> str | None:
        """Registers a picture under an id; one that had this id is replaced. Returns a note where the picture has so little texture that
        only plain copies will be found, or none at all; else None. Raises ValueError for what is no picture."""
        from matcher.copies.features import registered
        from matcher.copies.plain import note

        print_ = registered(rgb)
        self._copies.add(media_id, print_)
        return note(print_)

    def remove(self, media_id: str | int) -> None:
        """Raises KeyError."""
        if not self._copies.remove(media_id):
            raise KeyError(media_id)

    def search(self, rgb: U8, *, transform: Transform = "scale", similar: bool = False) -> list[Hit]:
        """Registered pictures that the query shows, copies first. `transform` is what may have been done to it besides mirroring: scale
        (crop and resize), affine (turned, stretched, at a slant, too) or perspective. With `similar` whatever looks alike, the most alike
        first, unverified. Raises ValueError."""
        from matcher.copies.features import fingerprint

        if transform not in get_args(Transform):
            raise ValueError(f"transform is one of {', '.join(get_args(Transform))}, not {transform!r}")
        query = fingerprint(rgb)
        if similar:
            return [Hit(c.id, c.score, None, None, c.mirrored, None) for c in self._copies.similar(query)]
        model: Model = transform
        return [
            Hit(f.id, f.verdict.score, f.verdict.name, f.verdict.transform, f.verdict.mirrored, f.verdict.overlap)
            for f in self._copies.search(query, model)
        ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to a file, whole or not at all. Raises OSError."""
        self._copies.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """The index in a file that `save` wrote, which is mapped into memory: it must not be changed while the index lives. Raises OSError,
        IndexInvalid."""
        from matcher.copies.index import CopyIndex
        from matcher.copies.snapshot import SnapshotInvalid

        index = cls()
        try:
            index._copies = CopyIndex.load(path)
        except SnapshotInvalid as error:
            raise IndexInvalid(str(error)) from error
        return index
