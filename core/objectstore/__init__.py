"""Bytes under keys: the object store's seam. `folder` is embedded, `s3` is any S3 server.

Keys are ASCII, without `//`, `.` or `..` segments, at most 255 bytes in a segment, and no key is a prefix of another at a `/`.
An object appears whole or not at all, and once `put` has returned it survives a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, Protocol


class ObjectInfo(NamedTuple):
    key: str
    length: int
    modified: datetime


class ObjectStore(Protocol):
    def put(self, key: str, data: bytes | Path) -> ObjectInfo:
        """Stores the bytes, or the file's content, whole and durable. Replaces what was there."""

    def get(self, key: str) -> bytes:
        """Raises ObjectMissing."""

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset` on; fewer at the end of the object. Raises ObjectMissing."""

    def stream(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The object in pieces of bounded size. Raises ObjectMissing before the first piece."""

    def head(self, key: str) -> ObjectInfo:
        """Raises ObjectMissing."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with `prefix`, in key order (of S3 servers that keep to it)."""

    def delete(self, keys: Iterable[str]) -> None:
        """Missing ones are no error."""

    def join(self, parts: Sequence[str], key: str, *, tail: bytes = b"") -> ObjectInfo:
        """Puts the concatenation of stored objects (and `tail`) under `key`, whole or not at all; length verified. Raises ObjectMissing."""

    def url(self, key: str, expires_in: timedelta, *, filename: str | None = None) -> str:
        """A capability: an address at which anybody can GET the object (ranges too) until it expires."""

    def sweep(self, before: datetime) -> int:
        """Removes what writers that died left of objects that never showed, if they began before that moment. Returns how many."""

    def close(self) -> None:
        """Gives back what is open. Nothing is asked of the store afterwards."""
