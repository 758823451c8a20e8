"""Files of crawled pictures near at hand: small ones in memory, others in a local folder, memory-mapped; those used least recently go."""

from __future__ import annotations

import hashlib
import mmap
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from core.errors import Unavailable
from core.models import CrawledFile
from core.objectstore import ObjectStore
from matcher.crawled.file import PictureFile, PictureFileInvalid
from matcher.recent import Recent

_SMALL: Final = 1 << 20
"""Smaller files are not worth one on the disk."""
_MEMORY: Final = 256 << 20
_SUFFIX: Final = ".pictures"
_STALE: Final = 3600.0


class Shelf:
    """Thread-safe; several processes may share the folder. What is opened stays usable when it goes from here."""

    def __init__(self, store: ObjectStore, folder: Path, gigabytes: float) -> None:
        self._store = store
        self._folder = folder
        self._limit = int(gigabytes * (1 << 30))
        self._small: Recent[PictureFile] = Recent(_MEMORY, _bytes)
        self._mapped: Recent[PictureFile] = Recent(self._limit, _bytes)

    def get(self, row: CrawledFile) -> PictureFile:
        """The file, fetched if need be, with the digest that the row tells.

        Raises:
            ObjectMissing: its object is gone.
            PictureFileInvalid: these are not the bytes that were stored.
            Unavailable: the store is away, or the local disk is full.
        """
        recent = self._small if row.length < _SMALL else self._mapped
        found = recent.get(row.sha256)
        if found is None:
            found = PictureFile(self._in_memory(row) if recent is self._small else self._on_disk(row))
            recent.put(row.sha256, found)
        return found

    def _in_memory(self, row: CrawledFile) -> memoryview:
        data = self._store.get_range(row.key, row.offset, row.length)
        _check(row, data)
        return memoryview(data)

    def _on_disk(self, row: CrawledFile) -> memoryview:
        try:
            return self._local(row, self._folder / f"{row.sha256}{_SUFFIX}")
        except OSError as error:
            reason = f"a file of crawled pictures cannot be kept in {self._folder}: {error.strerror}"
            raise Unavailable(reason, code="local_disk", retry_after=30) from error

    def _local(self, row: CrawledFile, path: Path) -> memoryview:
        with suppress(FileNotFoundError, PictureFileInvalid):
            return self._map(row, path)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._fetch(row, path)
        self._make_room(path)
        return self._map(row, path)

    def _map(self, row: CrawledFile, path: Path) -> memoryview:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != row.length:
                raise PictureFileInvalid(f"{path} was cut")
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        _check(row, data)
        os.utime(path)
        return data

    def _fetch(self, row: CrawledFile, path: Path) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            try:
                for piece in self._store.stream(row.key, row.offset, row.length):
                    file.write(piece)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        Path(file.name).replace(path)

    def _make_room(self, newest: Path) -> None:
        """Those used longest ago go, also what another life of this process left."""
        files = sorted(self._files(), key=lambda file: -file[1])
        total = 0
        for path, _, size in files:
            total += size
            if total > self._limit and path != newest:
                path.unlink(missing_ok=True)

    def _files(self) -> Iterator[tuple[Path, float, int]]:
        """Path, when it was used last, and bytes; without those that are just being fetched."""
        for entry in os.scandir(self._folder):
            with suppress(FileNotFoundError):
                stat = entry.stat()
                if entry.name.endswith(_SUFFIX) or stat.st_mtime < time.time() - _STALE:
                    yield Path(entry.path), stat.st_mtime, stat.st_size


def _bytes(file: PictureFile) -> int:
    return file.nbytes


def _check(row: CrawledFile, data: bytes | memoryview) -> None:
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise PictureFileInvalid(f"{row.key} from {row.offset} on holds other bytes than were stored")
