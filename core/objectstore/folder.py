"""The object store in a folder: one file per object, for one machine.

    <root>/objects/<key>     whole objects
    <root>/incoming/         files that are still being written; what nobody wrote to for an hour is swept when the store is opened

An object is written beside, synced, and renamed into place, so a reader sees the old bytes, the new bytes, or none.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import stat as modes
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

from core.disk import sync_folder, write_all
from core.errors import Corrupt, Forbidden, InvalidInput, ObjectMissing, Unavailable
from core.objectstore import ObjectInfo
from core.objectstore.keys import check_key, check_prefix, check_range

PIECE: Final = 1 << 20
"""Bytes of one piece of a stream."""
_STALE: Final = timedelta(hours=1)
_TRIES: Final = 20


class FolderStore:
    """An `ObjectStore` in a folder. Thread-safe; any number of processes may share the folder."""

    def __init__(self, root: Path, *, public_url: str, secret: bytes) -> None:
        """Opens (and if need be makes) the folder.

        Args:
            root: a folder on one file system.
            public_url: where the API serves this store's capabilities, without a slash at the end.
            secret: signs the capabilities.
        """
        self._objects = root / "objects"
        self._incoming = root / "incoming"
        self._public_url = public_url.rstrip("/")
        self._secret = secret
        with _failures():
            self._objects.mkdir(parents=True, exist_ok=True)
            self._incoming.mkdir(exist_ok=True)
            self.sweep(datetime.now(UTC) - _STALE)

    def put(self, key: str, data: bytes | Path) -> ObjectInfo:
        path = self._path(key)
        if isinstance(data, Path):
            data.stat()  # a missing source is the caller's mistake, not the store's failure
        with _failures():
            return self._place(key, path, _pieces(data) if isinstance(data, Path) else [data])

    def get(self, key: str) -> bytes:
        path = self._path(key)
        with _failures(key):
            return path.read_bytes()

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        path = self._path(key)
        check_range(offset, length)
        with _failures(key), path.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def stream(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        path = self._path(key)
        check_range(offset, length)
        self.head(key)
        return self._stream(key, path, offset, length)

    def head(self, key: str) -> ObjectInfo:
        path = self._path(key)
        with _failures(key):
            return _info(key, path.stat())

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = check_prefix(prefix)
        start = self._objects / folder
        return (info for info in self._walk(start, f"{folder}/" if folder else "", prefix))

    def delete(self, keys: Iterable[str]) -> None:
        # Not synced: an object that a crash brings back has no row, and is swept.
        for key in keys:
            path = self._path(key)
            with _failures(), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                path.unlink()
                self._remove_empty(path.parent)

    def join(self, parts: Sequence[str], key: str, *, tail: bytes = b"") -> ObjectInfo:
        path = self._path(key)
        length = sum(self.head(part).length for part in parts) + len(tail)
        with _failures():
            return self._place(key, path, self._concatenation(parts, tail), length)

    def url(self, key: str, expires_in: timedelta, *, filename: str | None = None) -> str:
        self._path(key)
        expires = str(int(time.time() + expires_in.total_seconds()))
        query = {"expires": expires, "signature": self._signature(key, expires, filename)}
        if filename:
            query["filename"] = filename
        return f"{self._public_url}/objects/{quote(key)}?{urlencode(query)}"

    def verify(self, key: str, expires: str | int, signature: str, filename: str | None = None) -> None:
        """Checks what came with a request for an address that `url` gave.

        Raises:
            Forbidden: not our signature for exactly these values, or expired.
            ObjectMissing: all is well, but the object is gone.
        """
        expected = self._signature(key, str(expires), filename)
        if not hmac.compare_digest(expected.encode(), signature.encode(errors="replace")):
            raise Forbidden("the address of this object is not one that was given out", code="bad_signature")
        if int(expires) < time.time():
            raise Forbidden("the address of this object has expired; ask for a new one", code="url_expired")
        self.head(key)

    def sweep(self, before: datetime) -> int:
        count = 0
        with _failures():
            for path in self._incoming.iterdir():
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < before.timestamp():
                        path.unlink()
                        count += 1
        return count

    def close(self) -> None:
        """Nothing stays open."""

    def _signature(self, key: str, expires: str, filename: str | None) -> str:
        message = json.dumps(["objects", key, expires, filename or ""]).encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()

    def _path(self, key: str) -> Path:
        return self._objects / check_key(key)

    def _place(self, key: str, path: Path, pieces: Iterable[bytes], length: int | None = None) -> ObjectInfo:
        """Writes the pieces to a file beside, and when all is on the disk (and `length` is right) shows it under the key."""
        with tempfile.NamedTemporaryFile(dir=self._incoming, buffering=0, delete=False) as file:
            temporary = Path(file.name)
            try:
                for piece in pieces:
                    write_all(file.fileno(), piece)
                os.fsync(file.fileno())
                info = _info(key, os.fstat(file.fileno()))
                if length is not None and info.length != length:
                    raise Corrupt(f"{key}: {info.length} bytes were written instead of {length}", code="length_mismatch")
                self._show(key, temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return info

    def _show(self, key: str, temporary: Path, path: Path) -> None:
        """Tries more than once: deletes take away empty folders, between the steps and within `mkdir`."""
        for tries_left in reversed(range(_TRIES)):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary.replace(path)
                break
            except FileNotFoundError:
                if not tries_left:
                    raise
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                if not tries_left:
                    raise InvalidInput(f"{key}: another key is a prefix of this one, or this one of it", code="bad_key") from error
        self._sync_folders(path.parent)

    def _sync_folders(self, folder: Path) -> None:
        """Up to the root, since another process may just have made any of them; a folder without news costs microseconds."""
        while True:
            with suppress(FileNotFoundError):
                sync_folder(folder)
            if folder == self._objects:
                return
            folder = folder.parent

    def _concatenation(self, parts: Sequence[str], tail: bytes) -> Iterator[bytes]:
        for part in parts:
            yield from self.stream(part)
        yield tail

    def _stream(self, key: str, path: Path, offset: int, length: int | None) -> Iterator[bytes]:
        with _failures(key):
            yield from _pieces(path, offset, length)

    def _walk(self, folder: Path, base: str, prefix: str) -> Iterator[ObjectInfo]:
        """In key order: a folder sorts by its name with the slash, as its keys do."""
        try:
            entries = sorted((entry.name + "/" if entry.is_dir() else entry.name, entry) for entry in os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for name, entry in entries:
            key = base + name
            if name.endswith("/") and (key.startswith(prefix) or prefix.startswith(key)):
                yield from self._walk(Path(entry.path), key, prefix)
            elif key.startswith(prefix):
                with suppress(FileNotFoundError):
                    yield _info(key, entry.stat())

    def _remove_empty(self, folder: Path) -> None:
        with suppress(OSError):
            while folder != self._objects:
                folder.rmdir()
                folder = folder.parent


@contextmanager
def _failures(key: str | None = None) -> Iterator[None]:
    """Turns the operating system's errors into ours; with a key, a missing file is a missing object."""
    try:
        yield
    except OSError as error:
        if key is not None and isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
            raise ObjectMissing(f"no object {key}") from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable("the object store's disk is full; free some space", code="store_full", retry_after=60) from error
        raise Unavailable(f"the object store's folder does not work: {error.strerror}", code="store_unavailable") from error


def _info(key: str, stat: os.stat_result) -> ObjectInfo:
    if not modes.S_ISREG(stat.st_mode):
        raise ObjectMissing(f"no object {key}")
    return ObjectInfo(key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))


def _pieces(path: Path, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while piece := file.read(PIECE if length is None else min(PIECE, length)):
            length = None if length is None else length - len(piece)
            yield piece
