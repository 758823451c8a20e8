"""A local file that only grows, by whole members."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from core.disk import sync_folder, write_all
from core.errors import Unavailable

_sync_data = getattr(os, "fdatasync", os.fsync)
"""Not every system has the lighter one."""


class SegmentFile:
    """Appends without a buffer of its own: once `append` has returned, a kill of the process takes nothing back. Used by one thread."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it; what a crash left in it should have been cut before. Raises Unavailable."""
        self.path = path
        try:
            new = not path.exists()
            self._file = path.open("ab", buffering=0)
            self._size = path.stat().st_size
            if new:
                sync_folder(path.parent)
        except OSError as error:
            raise _unavailable("open", path, error) from error

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._size

    def append(self, pieces: Sequence[bytes]) -> int:
        """Writes the pieces as one member, whole or not at all.

        Returns:
            The offset of the first byte.

        Raises:
            Unavailable: the disk is full ("disk_full") or fails ("disk_failed"); the file is as before.
        """
        start = self._size
        try:
            self._size += write_all(self._file.fileno(), b"".join(pieces))
        except OSError as error:
            self._take_back(start)
            raise _unavailable("write", self.path, error) from error
        return start

    def flush(self) -> None:
        """Nothing to do here: the operating system has all of it already."""

    def sync(self) -> None:
        """Returns when what was appended survives the loss of power (fdatasync). Raises Unavailable."""
        try:
            _sync_data(self._file.fileno())
        except OSError as error:
            raise _unavailable("sync", self.path, error) from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _take_back(self, size: int) -> None:
        """Where not even this works the file is closed: what came after half a member would be lost."""
        try:
            os.ftruncate(self._file.fileno(), size)
        except OSError:
            self.close()


def _unavailable(what: str, path: Path, error: OSError) -> Unavailable:
    code = "disk_full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "disk_failed"
    return Unavailable(f"cannot {what} {path.name}: {error.strerror}", code=code, retry_after=60)
