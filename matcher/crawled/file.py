"""A file of crawled pictures: a table of them beside their looks and the inverted file of their features. Immutable; read in place, also
memory-mapped.

    header (48 bytes, little-endian) | digests (n x 32) | looks (n x 128) | ends of the rows (n x u64) | rows (MessagePack) | segment

Picture i of the segment is row i. A row without features tells of further pages of a picture whose features are in another file.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from core.repo.crawled import FileDraft
from matcher.copies import segment_file
from matcher.copies.features import MIRROR, Fingerprint
from matcher.copies.segment import Segment
from matcher.copies.segment_file import SegmentInvalid
from matcher.copies.sift import DIMENSIONS
from matcher.crawled import features, table
from matcher.crawled.table import CrawledPicture
from matcher.pixels import F32, U8

_HEADER: Final = struct.Struct("<4sIQQQQQ")
_MAGIC: Final = b"FGC1"
_DIGEST: Final = 32
_ALIGN: Final = 64


class Alike(NamedTuple):
    """A picture whose look is near: `distance` as of `look_index.Alike`."""

    number: int
    distance: float
    mirrored: bool


class PictureFileInvalid(ValueError):
    """The bytes are no file of crawled pictures of a version that this program reads."""


@dataclass(frozen=True, slots=True)
class _Layout:
    count: int
    looks: int
    ends: int
    rows: int
    segment: int
    length: int


class PictureFile:
    """An opened file. Thread-safe; keeps the buffer that it was opened on."""

    def __init__(self, buffer: memoryview) -> None:
        """Raises PictureFileInvalid."""
        self._buffer = buffer
        self._layout = _layout(buffer)

    def __len__(self) -> int:
        return self._layout.count

    @property
    def nbytes(self) -> int:
        return len(self._buffer)

    @cached_property
    def segment(self) -> Segment:
        """The features. Raises PictureFileInvalid."""
        try:
            found = segment_file.from_bytes(self._buffer[self._layout.segment : self._layout.length], verify=False)
        except SegmentInvalid as error:
            raise PictureFileInvalid(f"the segment cannot be read: {error}") from error
        if found.pictures != len(self):
            raise PictureFileInvalid("the segment has other pictures than the table")
        return found

    @cached_property
    def looks(self) -> U8:
        """n x 128: the look of each picture, zeros where it has none."""
        return np.frombuffer(self._buffer, np.uint8, self._layout.count * DIMENSIONS, self._layout.looks).reshape(-1, DIMENSIONS)

    def alike(self, look: U8, limit: int, within: float) -> list[Alike]:
        """At most `limit` pictures whose look, or its mirror, is not farther than `within`, the nearest first."""
        if not len(look):
            return []
        both = np.stack([look, look[MIRROR]]).astype(np.float32)
        squared = self._lengths[:, None] + (both**2).sum(axis=1) - 2 * (self.looks.astype(np.float32) @ both.T)
        nearest = np.where(self._lengths > 0, squared.min(axis=1), np.inf)
        order = np.argsort(nearest, kind="stable")[:limit]
        return [
            Alike(int(number), float(max(0.0, nearest[number])) ** 0.5, bool(squared[number, 1] < squared[number, 0]))
            for number in order
            if nearest[number] <= within * within
        ]

    @cached_property
    def _lengths(self) -> F32:
        """Of each look, squared."""
        return np.asarray(np.square(self.looks.astype(np.float32)).sum(axis=1), np.float32)

    @cached_property
    def digests(self) -> U8:
        """n x 32: SHA-256 of each picture's bytes."""
        return np.frombuffer(self._buffer, np.uint8, self._layout.count * _DIGEST, _HEADER.size).reshape(-1, _DIGEST)

    def row(self, number: int) -> memoryview:
        """A picture's encoded row."""
        start = int(self._ends[number - 1]) if number else 0
        return self._buffer[self._layout.rows + start : self._layout.rows + int(self._ends[number])]

    def picture(self, number: int) -> CrawledPicture:
        """Raises PictureFileInvalid."""
        try:
            return table.decode(self.row(number))
        except msgspec.MsgspecError as error:
            raise PictureFileInvalid(f"row {number} cannot be read: {error}") from error

    def find(self, sha256: bytes) -> list[CrawledPicture]:
        """The picture with these bytes, if it is here."""
        prefixes, order = self._sorted
        prefix = np.frombuffer(sha256, ">u8", 1).astype(np.uint64)[0]
        alike = order[np.searchsorted(prefixes, prefix) : np.searchsorted(prefixes, prefix, side="right")]
        return [self.picture(number) for number in alike.tolist() if self.digests[number].tobytes() == sha256]

    @cached_property
    def _ends(self) -> npt.NDArray[np.uint64]:
        return np.frombuffer(self._buffer, "<u8", self._layout.count, self._layout.ends)

    @cached_property
    def _sorted(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        """(first 8 bytes of the digests in ascending order, whose they are)."""
        prefixes = np.ascontiguousarray(self.digests[:, :8]).view(">u8").ravel().astype(np.uint64)
        order = np.argsort(prefixes, kind="stable")
        return prefixes[order], order


def _layout(buffer: memoryview) -> _Layout:
    if len(buffer) < _HEADER.size or bytes(buffer[:4]) != _MAGIC:
        raise PictureFileInvalid("not a file of crawled pictures, or one of a newer version")
    _, *numbers = _HEADER.unpack_from(buffer)
    at = _Layout(*numbers)
    tables = _HEADER.size + at.count * _DIGEST <= at.looks <= at.looks + at.count * DIMENSIONS <= at.ends <= at.ends + 8 * at.count
    if not (tables and at.ends + 8 * at.count <= at.rows <= at.segment <= at.length <= len(buffer)):
        raise PictureFileInvalid("the file is shorter than its header says, or its parts overlap")
    return at


def build(pictures: Sequence[CrawledPicture], prints: Sequence[Fingerprint | None]) -> bytes:
    """A file of these pictures, each with its features or without."""
    looks = np.zeros((len(prints), DIMENSIONS), np.uint8)
    for look, print_ in zip(looks, prints, strict=True):
        if print_ is not None and len(print_.look):
            look[:] = print_.look
    return assembled(pictures, looks, features.segment(prints))


def assembled(pictures: Sequence[CrawledPicture], looks: U8, segment: Segment) -> bytes:
    """A file of these pictures with these looks (n x 128), whose features are in the segment."""
    return _assembled([picture.sha256 for picture in pictures], looks, [table.encode(picture) for picture in pictures], segment)


def draft(session: int, key: str, part: bytes, pictures: int, last_seen: datetime, *, offset: int = 0, fresh: bool = False) -> FileDraft:
    """The row of a file that is stored under the key, from `offset` on."""
    return FileDraft(session, key, offset, len(part), hashlib.sha256(part).hexdigest(), pictures, last_seen, fresh)


def _assembled(digests: Sequence[bytes], looks: U8, rows: Sequence[bytes | memoryview], segment: Segment) -> bytes:
    ends = np.cumsum([len(row) for row in rows], dtype="<u8") if rows else np.zeros(0, "<u8")
    looks_at = _HEADER.size + _DIGEST * len(rows)
    ends_at = _aligned(looks_at + DIMENSIONS * len(rows))
    rows_at = ends_at + 8 * len(rows)
    segment_at = _aligned(rows_at + (int(ends[-1]) if rows else 0))
    body = segment_file.to_bytes(segment)
    header = _HEADER.pack(_MAGIC, len(rows), looks_at, ends_at, rows_at, segment_at, segment_at + len(body))
    front = b"".join((header, *digests, looks.tobytes()))
    front += bytes(ends_at - len(front)) + ends.tobytes() + b"".join(rows)
    return front + bytes(segment_at - len(front)) + body


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN


# --- merging


def merged(files: Sequence[PictureFile], *, seen_since: datetime | None = None) -> tuple[bytes, int]:
    """(one file for these (the oldest first), how many pictures it has): each picture once, with its newest features and all its pages;
    those not seen since then are left out. Raises PictureFileInvalid."""
    kept: list[npt.NDArray[np.bool_]] = [np.ones(len(file), np.bool_) for file in files]
    changed: dict[tuple[int, int], CrawledPicture] = {}
    for group in _repeated(files):
        pictures = [files[file].picture(number) for file, number in group]
        for file, number in group:
            kept[file][number] = False
        keeper = max(range(len(group)), key=lambda place: (pictures[place].size is not None, place))
        file, number = group[keeper]
        kept[file][number] = True
        changed[group[keeper]] = table.joined(pictures)
    if seen_since is not None:
        _leave_out(files, kept, changed, seen_since)
    digests, rows = _rows(files, kept, changed)
    looks = np.concatenate([np.zeros((0, DIMENSIONS), np.uint8), *(file.looks[keep] for file, keep in zip(files, kept, strict=True))])
    return _assembled(digests, looks, rows, features.merged([file.segment for file in files], kept)), len(rows)


def _repeated(files: Sequence[PictureFile]) -> list[list[tuple[int, int]]]:
    """(file, number) of each picture that is there more than once."""
    places: dict[bytes, list[tuple[int, int]]] = {}
    for file, opened in enumerate(files):
        for number, digest in enumerate(opened.digests):
            places.setdefault(digest.tobytes(), []).append((file, number))
    return [group for group in places.values() if len(group) > 1]


def _leave_out(
    files: Sequence[PictureFile],
    kept: Sequence[npt.NDArray[np.bool_]],
    changed: dict[tuple[int, int], CrawledPicture],
    seen_since: datetime,
) -> None:
    for file, opened in enumerate(files):
        for number in np.flatnonzero(kept[file]).tolist():
            picture = changed.get((file, number)) or opened.picture(number)
            if picture.last_seen < seen_since:
                kept[file][number] = False


def _rows(
    files: Sequence[PictureFile], kept: Sequence[npt.NDArray[np.bool_]], changed: dict[tuple[int, int], CrawledPicture]
) -> tuple[list[bytes], list[bytes | memoryview]]:
    digests: list[bytes] = []
    rows: list[bytes | memoryview] = []
    for file, opened in enumerate(files):
        for number in np.flatnonzero(kept[file]).tolist():
            digests.append(opened.digests[number].tobytes())
            picture = changed.get((file, number))
            rows.append(opened.row(number) if picture is None else table.encode(picture))
    return digests, rows
