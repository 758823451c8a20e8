"""What was read from the object store, on the local disk: a file of bounded size in which what is new takes the place of what is oldest."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from matcher.copies.prints import Opened

log = structlog.get_logger()
SPOOL_BYTES: Final = 1 << 30


class _Piece(NamedTuple):
    start: int
    end: int


class Spool:
    """Byte strings by name. Thread-safe; gone with the process, so nothing in it is older than that."""

    def __init__(self, folder: Path, size: int = SPOOL_BYTES) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._pieces: OrderedDict[str, _Piece] = OrderedDict()  # in the order in which they lie in the file, from the oldest on
        self._end = 0
        descriptor, name = tempfile.mkstemp(dir=folder, prefix="spool-")
        Path(name).unlink()
        self._file = Opened(descriptor)

    def get(self, key: str, fetch: Callable[[], bytes]) -> bytes:
        """What lies here, or what `fetch` gives, which lies here then. Raises what `fetch` does."""
        with self._lock:
            piece = self._pieces.get(key)
            if piece is not None:
                return os.pread(self._file.descriptor, piece.end - piece.start, piece.start)
        data = fetch()
        try:
            with self._lock:
                self._put(key, data)
        except OSError as error:  # no room on the disk: it is fetched again the next time
            log.warning("spool.failed", reason=str(error))
        return data

    def forget(self, key: str) -> None:
        with self._lock:
            self._pieces.pop(key, None)

    def _put(self, key: str, data: bytes) -> None:
        self._pieces.pop(key, None)
        if not 0 < len(data) <= self._size:
            return
        start = self._end if self._end + len(data) <= self._size else 0
        self._make_room(start, start + len(data))
        os.pwrite(self._file.descriptor, data, start)
        self._pieces[key] = _Piece(start, start + len(data))
        self._end = start + len(data)

    def _make_room(self, start: int, end: int) -> None:
        """The oldest lie next to where was written last, going round."""
        if start < self._end:  # begun from the front again: what lies behind the end is the oldest
            self._drop(self._end, self._size)
        self._drop(start, end)

    def _drop(self, start: int, end: int) -> None:
        while self._pieces:
            key, piece = next(iter(self._pieces.items()))
            if piece.start >= end or piece.end <= start:
                return
            del self._pieces[key]
