"""Whole fingerprints on disk: an append-only file and where each begins. They are read when a candidate is verified, a few per search."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_REWRITTEN: Final = 64 << 20
"""Bytes of removed fingerprints that are not worth a new file."""


class Opened:
    """A descriptor that is closed with the last one who has it: a search may still read a file that was replaced."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)


@dataclass(slots=True, eq=False)
class _Pieces:
    """`stamps`: ascending; `starts`, `lengths`: where in `file`, 0 bytes where it was removed."""

    file: Opened
    stamps: array[int] = field(default_factory=lambda: array("q"))
    starts: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("I"))
    end: int = 0
    dead: int = 0

    def append(self, stamp: int, data: bytes) -> None:
        write_all(self.file.descriptor, data, self.end)
        self.stamps.append(stamp)
        self.starts.append(self.end)
        self.lengths.append(len(data))
        self.end += len(data)

    def at(self, stamp: int) -> tuple[int, int]:
        """(place, length). Raises KeyError."""
        place = bisect_left(self.stamps, stamp)
        if place == len(self.stamps) or self.stamps[place] != stamp or not (length := self.lengths[place]):
            raise KeyError(stamp)
        return place, length

    def read(self, place: int, length: int) -> bytes:
        data = os.pread(self.file.descriptor, length, self.starts[place])
        if len(data) != length:
            raise OSError("the file of fingerprints is shorter than it was")
        return data

    def remove(self, stamp: int) -> None:
        """Nothing where there is none."""
        try:
            place, length = self.at(stamp)
        except KeyError:
            return
        self.dead += length
        self.lengths[place] = 0

    def alive(self, places: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        for place in places:
            length = self.lengths[place]
            if length:
                yield self.stamps[place], self.read(place, length)


class Prints:
    """Byte strings by stamp, a number that grows with each one added. Thread-safe; reading waits for nobody."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: where the file lies, which nobody else sees; the system's temporary one by default."""
        self._folder = folder
        self._lock = threading.Lock()
        self._old = _Pieces(self._file())
        self._new = self._old
        self._gone: list[int] = []
        self._rewriting = False
        self._next = 0

    @classmethod
    def stored(
        cls,
        file: Opened,
        stamps: Iterable[int],
        starts: Iterable[int],
        lengths: Iterable[int],
        folder: Path | None = None,
        *,
        begin: int = 0,
    ) -> Prints:
        """Those in a file that is not written to: what is added goes to another one. `begin`: no stamp from there on was given out."""
        prints = cls(folder)
        prints._old = _Pieces(file, array("q", stamps), array("q", starts), array("I", lengths))
        prints._next = max(begin, prints._old.stamps[-1] + 1 if prints._old.stamps else 0)
        return prints

    @property
    def nbytes(self) -> int:
        """In memory, not on disk."""
        return sum(20 * len(pieces.stamps) for pieces in {self._old, self._new})

    @property
    def wasteful(self) -> bool:
        """Whether most of the file are removed ones."""
        pieces = self._new
        return pieces.dead > max(_REWRITTEN, pieces.end // 2)

    def append(self, data: bytes) -> int:
        """The stamp, greater than all before it. Of no bytes nothing is kept but that."""
        with self._lock:
            stamp, self._next = self._next, self._next + 1
            if data:
                self._new.append(stamp, data)
        return stamp

    def read(self, stamp: int) -> bytes:
        """Raises KeyError, OSError."""
        for pieces in (self._new, self._old):
            try:
                return pieces.read(*pieces.at(stamp))
            except KeyError:
                continue
        raise KeyError(stamp)

    def remove(self, stamp: int) -> None:
        """Nothing where there is none."""
        with self._lock:
            if self._rewriting:
                self._gone.append(stamp)
            for pieces in {self._old, self._new}:
                pieces.remove(stamp)

    def rewrite(self) -> None:
        """Copies what is alive into a new file; others wait only while what they changed meanwhile is done again. One at a time."""
        old, draft = self._new, _Pieces(self._file())
        with self._lock:
            known, self._gone, self._rewriting = len(old.stamps), [], True
        for stamp, data in old.alive(range(known)):
            draft.append(stamp, data)
        with self._lock:
            for stamp, data in old.alive(range(known, len(old.stamps))):
                draft.append(stamp, data)
            for stamp in self._gone:
                draft.remove(stamp)
            self._rewriting = False
            self._old, self._new = (draft if self._old is old else self._old), draft

    def _file(self) -> Opened:
        descriptor, name = tempfile.mkstemp(dir=self._folder, prefix="filigrane-prints-")
        Path(name).unlink()
        return Opened(descriptor)


def write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Raises OSError, also where the disk is full."""
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, offset)
        left, offset = left[written:], offset + written
