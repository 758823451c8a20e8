"""Objects put whole or joined, and looked at again: what the server shows must be what was meant, else it is written anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.errors import Corrupt, Unavailable
from core.objectstore.s3.connection import Connection
from core.objectstore.s3.reading import Stored, bare, look, pieces
from core.objectstore.s3.upload import LEAST, PART, Upload, encoded, part_size, prove

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

SINGLE: Final = 16 << 20
"""The largest object that is put in one call."""
_TRIES: Final = 3
_ANEW: Final = frozenset({"upload_gone"})
"""What only another upload can help: SeaweedFS says so of one whose parts it does not hold, any server after its own sweep."""


def put_bytes(connection: Connection, name: str, data: bytes) -> Stored:
    """Raises Corrupt, Unavailable."""
    digest = hashlib.sha256(data)
    if len(data) <= SINGLE:
        return _verified(connection, name, len(data), digest.hexdigest(), lambda _: _put(connection, name, data, digest.digest()))
    size = part_size(len(data))
    view = memoryview(data)

    def write(_: int) -> str:
        parts = (bytes(view[start : start + size]) for start in range(0, len(data), size))
        return _upload(connection, name, parts, digest.hexdigest())

    return _verified(connection, name, len(data), digest.hexdigest(), write)


def put_file(connection: Connection, name: str, path: Path) -> Stored:
    """In memory is a part at most. Raises Corrupt, Unavailable, OSError of the file."""
    length = path.stat().st_size
    if length <= SINGLE:
        return put_bytes(connection, name, path.read_bytes())
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()

        def write(_: int) -> str:
            file.seek(0)
            return _upload(connection, name, iter(lambda: file.read(part_size(length)), b""), sha256)

        return _verified(connection, name, length, sha256, write)


def join(connection: Connection, name: str, sources: Sequence[Stored], tail: bytes) -> Stored:
    """The sources and the tail as one object. Large sources are copied by the server, unless that has just failed.

    Raises:
        ObjectMissing: a source is gone.
        Corrupt, Unavailable.
    """
    total = sum(source.length for source in sources) + len(tail)
    if total <= SINGLE:
        whole = b"".join(piece for source in sources for piece in pieces(connection, source, 0, source.length))
        return put_bytes(connection, name, whole + tail)
    return _verified(connection, name, total, None, lambda tries: _assemble(connection, name, sources, tail, total, copy=tries == 0))


def _put(connection: Connection, name: str, data: bytes, digest: bytes) -> str:
    """One call. Returns the ETag."""

    def action(s3: S3Client) -> str:
        answer = s3.put_object(
            Bucket=connection.bucket, Key=name, Body=data, ChecksumSHA256=encoded(digest), Metadata={"sha256": digest.hex()}
        )
        prove(name, data, digest, answer)
        return bare(answer["ETag"])

    return connection.call(action, name)


def _upload(connection: Connection, name: str, parts: Iterable[bytes], sha256: str) -> str:
    """Puts the parts as one object. Returns its ETag. Raises Corrupt: together they do not have the digest."""
    digest = hashlib.sha256()
    with Upload(connection, name, sha256) as upload:
        for part in parts:
            digest.update(part)
            upload.add(part)
        if digest.hexdigest() != sha256:
            raise Corrupt(f"{name}: the file changed while it was put", code="source_changed")
        return upload.complete()


def _assemble(connection: Connection, name: str, sources: Sequence[Stored], tail: bytes, total: int, *, copy: bool) -> str:
    """Puts sources and tail as one object. Returns its ETag.

    A source that is large enough for a part is copied. Smaller ones wait here until they are a part together; when too few bytes wait
    before a large one, that comes here too, so that the next can be copied again. No more than a part and the least of one wait.
    """
    size = part_size(total)
    least = LEAST if size == PART else size  # of very many sources each part must be large, else they are too many
    waiting = bytearray()
    with Upload(connection, name, None) as upload:
        for source in sources:
            if copy and source.length >= least and (not waiting or len(waiting) >= least):
                _flush(upload, waiting)
                if upload.copy(source):
                    continue
            for piece in pieces(connection, source, 0, source.length):
                waiting += piece
                if len(waiting) >= size + least:
                    upload.add(bytes(waiting[:size]))
                    del waiting[:size]
        waiting += tail
        _flush(upload, waiting)
        return upload.complete()


def _flush(upload: Upload, waiting: bytearray) -> None:
    if waiting:
        upload.add(bytes(waiting))
        waiting.clear()


def _verified(connection: Connection, name: str, length: int, sha256: str | None, write: Callable[[int], str]) -> Stored:
    """Writes, by `write(tries so far)` that returns an ETag, and looks at what is there.

    Raises:
        Corrupt: after three tries it still is not what was meant; nothing of ours is left under the name.
        Unavailable.
    """
    trouble: Unavailable = Corrupt(f"{name}: what the server shows is not what was put", code="length_mismatch")
    for tries in range(_TRIES):
        try:
            etag = write(tries)
        except Unavailable as error:
            if error.code not in _ANEW and not isinstance(error, Corrupt):
                raise
            trouble = error
            continue
        stored = look(connection, name)
        if (stored.length, stored.etag, stored.sha256) == (length, etag, sha256):
            return stored
        if stored.etag == etag:
            connection.call(lambda s3: s3.delete_object(Bucket=connection.bucket, Key=name), name)
    raise trouble
