"""Bytes from the server, proven where they can be: by the length always, by the digest whenever an object is read whole."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from botocore.exceptions import ClientError

from core.errors import Corrupt, ObjectMissing
from core.objectstore.s3.connection import Connection
from core.objectstore.s3.failures import CAUGHT

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

PIECE: Final = 1 << 20
"""Bytes of one piece of a stream."""
_PAST_THE_END: Final = 416
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_SPAN: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Stored(NamedTuple):
    """What the server says of an object."""

    name: str
    """The key with the store's prefix."""
    length: int
    modified: datetime
    etag: str
    """Without quotes."""
    sha256: str | None
    """In hex, from the metadata: whoever put it reckoned it. None where the server put the object together."""


def look(connection: Connection, name: str) -> Stored:
    """What is under the name. Raises ObjectMissing, Unavailable."""
    try:
        answer = connection.call(lambda s3: s3.head_object(Bucket=connection.bucket, Key=name), name)
    except ObjectMissing:
        connection.call(lambda s3: s3.head_bucket(Bucket=connection.bucket))  # a HEAD does not say which of the two is missing
        raise
    return Stored(name, answer["ContentLength"], answer["LastModified"].astimezone(UTC), bare(answer["ETag"]), _sha256(answer))


def read(connection: Connection, name: str) -> bytes:
    """The whole object. Raises ObjectMissing, Corrupt, Unavailable."""

    def action(s3: S3Client) -> bytes:
        answer = s3.get_object(Bucket=connection.bucket, Key=name)
        with closing(answer["Body"]) as body:
            data = body.read()
        _check_digest(name, hashlib.sha256(data).hexdigest(), _sha256(answer))
        return data

    return connection.call(action, name)


def read_range(connection: Connection, name: str, offset: int, length: int) -> bytes:
    """At most `length` bytes from `offset` on. Raises ObjectMissing, Corrupt, Unavailable."""
    if length == 0:
        look(connection, name)
        return b""

    def action(s3: S3Client) -> bytes:
        try:
            answer = s3.get_object(Bucket=connection.bucket, Key=name, Range=f"bytes={offset}-{offset + length - 1}")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == _PAST_THE_END:
                return b""
            raise
        with closing(answer["Body"]) as body:
            total = _check_start(name, answer, offset)
            data = body.read()
        if len(data) != min(length, total - offset):
            raise Corrupt(f"{name}: {len(data)} bytes came of {length} from {offset} on", code="length_mismatch")
        return data

    return connection.call(action, name)


def pieces(connection: Connection, stored: Stored, start: int, end: int) -> Iterator[bytes]:
    """The bytes from `start` to before `end`, in pieces of `PIECE` at most.

    Of an object that is read whole the last piece comes only once the digest was right: who has all bytes has the right ones.

    Raises:
        Corrupt: they are not those that were put.
        Unavailable: the object was replaced meanwhile, or the server is away for longer than we wait.
    """
    digest = hashlib.sha256()
    held = b""
    for piece in _resumed(connection, stored, start, end):
        if held:
            yield held
        digest.update(piece)
        held = piece
    if (start, end) == (0, stored.length):
        _check_digest(stored.name, digest.hexdigest(), stored.sha256)
    if held:
        yield held


def _resumed(connection: Connection, stored: Stored, start: int, end: int) -> Iterator[bytes]:
    """Goes on where a body was cut; patience begins anew with each piece that came."""
    tries = connection.tries(stored.name)
    while start < end:
        body = _opened(connection, stored, start, end)
        try:
            with closing(body):
                while start < end and (piece := body.read(PIECE)):
                    start += len(piece)
                    tries = connection.tries(stored.name)
                    yield piece
            if start < end:
                raise Corrupt(f"{stored.name}: the body ended before its end", code="length_mismatch")
        except CAUGHT as error:
            tries.failed(error)


def _opened(connection: Connection, stored: Stored, start: int, end: int) -> Any:
    """The body of the object as it was when we looked. Raises ObjectMissing, Corrupt, Unavailable."""

    def action(s3: S3Client) -> Any:
        span = f"bytes={start}-{end - 1}"
        answer = s3.get_object(Bucket=connection.bucket, Key=stored.name, Range=span, IfMatch=f'"{stored.etag}"')
        try:
            _check_start(stored.name, answer, start)
            if bare(answer["ETag"]) != stored.etag:
                raise Corrupt(f"{stored.name}: another object came than the one that was asked for")
        except Corrupt:
            answer["Body"].close()
            raise
        return answer["Body"]

    return connection.call(action, stored.name)


def bare(etag: str) -> str:
    return etag.strip('"')


def _sha256(answer: Any) -> str | None:
    said = answer.get("Metadata", {}).get("sha256", "")
    return said if _SHA256.fullmatch(said) else None


def _check_digest(name: str, digest: str, expected: str | None) -> None:
    if expected is not None and digest != expected:
        raise Corrupt(f"{name}: what arrived is not what was put")


def _check_start(name: str, answer: GetObjectOutputTypeDef, offset: int) -> int:
    """The object's whole length. Raises Corrupt: the answer begins elsewhere."""
    found = _SPAN.fullmatch(answer.get("ContentRange", ""))
    if found is None and offset == 0:  # some servers send the whole with 200 when it was all that was asked for
        return answer["ContentLength"]
    if found is None or int(found[1]) != offset:
        raise Corrupt(f"{name}: the server sent another part than the one from {offset} on")
    return int(found[3])
