"""`S3Store`: objects in a bucket, below a prefix.

Whatever is written carries its SHA-256, which the server checks, and which stays in the object's metadata, where every server keeps it for
readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from botocore.exceptions import ClientError

from core.errors import InvalidInput, Unavailable
from core.objectstore import ObjectInfo
from core.objectstore.keys import check_key, check_prefix, check_range, is_key
from core.objectstore.s3 import writing
from core.objectstore.s3.connection import Connection
from core.objectstore.s3.failures import CAUGHT, failure
from core.objectstore.s3.reading import Stored, look, pieces, read, read_range

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListMultipartUploadsOutputTypeDef, ListObjectsV2OutputTypeDef

_BATCH: Final = 1000
_NO_BATCHES: Final = frozenset({"NotImplemented", "MethodNotAllowed", "MissingContentMD5", "501", "405"})
_LONGEST_URL: Final = timedelta(days=7)


class S3Store:
    """An `ObjectStore` in an S3 bucket. Thread-safe; any number of processes may share the bucket."""

    def __init__(self, bucket: str, prefix: str = "", *, endpoint_url: str = "") -> None:
        """Asks nothing of the server yet: who starts before it does is not stopped.

        Args:
            bucket: must exist.
            prefix: begins each key, with a slash between; empty for the whole bucket.
            endpoint_url: where the server answers; empty for Amazon's. Credentials come by boto3's usual chain.
        """
        self._prefix = f"{check_key(prefix)}/" if prefix else ""
        self._connection = Connection(bucket, endpoint_url)

    def put(self, key: str, data: bytes | Path) -> ObjectInfo:
        name = self._name(key)
        if isinstance(data, Path):
            return self._info(writing.put_file(self._connection, name, data))
        return self._info(writing.put_bytes(self._connection, name, data))

    def get(self, key: str) -> bytes:
        return read(self._connection, self._name(key))

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        check_range(offset, length)
        return read_range(self._connection, self._name(key), offset, length)

    def stream(self, key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        check_range(offset, length)
        stored = look(self._connection, self._name(key))
        end = stored.length if length is None else min(stored.length, offset + length)
        return pieces(self._connection, stored, offset, end)

    def head(self, key: str) -> ObjectInfo:
        return self._info(look(self._connection, self._name(key)))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """In the server's order. S3's is that of the keys; SeaweedFS goes folder by folder, where `a/b` comes before `a-b`."""
        check_prefix(prefix)
        return self._list(self._prefix + prefix)

    def delete(self, keys: Iterable[str]) -> None:
        names = (self._name(key) for key in keys)
        while batch := list(islice(names, _BATCH)):
            self._delete(batch)

    def join(self, parts: Sequence[str], key: str, *, tail: bytes = b"") -> ObjectInfo:
        name = self._name(key)
        sources = [look(self._connection, self._name(part)) for part in parts]
        return self._info(writing.join(self._connection, name, sources, tail))

    def url(self, key: str, expires_in: timedelta, *, filename: str | None = None) -> str:
        parameters = {"Bucket": self._connection.bucket, "Key": self._name(key)}
        if not timedelta(seconds=1) <= expires_in <= _LONGEST_URL:
            raise InvalidInput("an address at an S3 server lasts a second at least and seven days at most", code="bad_expiry")
        if filename:
            parameters["ResponseContentDisposition"] = f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
        try:
            client = self._connection.client()
            return client.generate_presigned_url("get_object", parameters, ExpiresIn=int(expires_in.total_seconds()))
        except CAUGHT as error:
            raise failure(error, self._connection.place, key).error from error

    def sweep(self, before: datetime) -> int:
        stale = list(self._uploads(before))
        for name, upload_id in stale:
            self._abort(name, upload_id)
        return len(stale)

    def close(self) -> None:
        self._connection.close()

    def _name(self, key: str) -> str:
        """The key with the store's prefix. Raises InvalidInput."""
        return check_key(self._prefix + check_key(key))

    def _info(self, stored: Stored) -> ObjectInfo:
        return ObjectInfo(stored.name.removeprefix(self._prefix), stored.length, stored.modified)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        """What is no key is somebody else's: a console's folder, say."""
        token: str | None = ""
        while token is not None:
            page = self._page(prefix, token)
            for item in page.get("Contents", []):
                key = item["Key"].removeprefix(self._prefix)
                if is_key(key):
                    yield ObjectInfo(key, item["Size"], item["LastModified"].astimezone(UTC))
            token = page["NextContinuationToken"] if page.get("IsTruncated") else None

    def _page(self, prefix: str, token: str) -> ListObjectsV2OutputTypeDef:
        where = {"Bucket": self._connection.bucket, "Prefix": prefix}
        more = {"ContinuationToken": token} if token else {}
        return self._connection.call(lambda s3: s3.list_objects_v2(**where, **more))  # type: ignore[arg-type]

    def _delete(self, names: Sequence[str]) -> None:
        bucket = self._connection.bucket
        self._connection.call(lambda s3: _delete_batch(s3, bucket, names), names[0])

    def _uploads(self, before: datetime) -> Iterator[tuple[str, str]]:
        """(name, id) of the uploads below the prefix that began before that moment."""
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            page = self._uploads_page(*after)
            yield from ((each["Key"], each["UploadId"]) for each in page.get("Uploads", []) if each["Initiated"] < before)
            after = (page["NextKeyMarker"], page["NextUploadIdMarker"]) if page.get("IsTruncated") else None

    def _uploads_page(self, key: str, upload_id: str) -> ListMultipartUploadsOutputTypeDef:
        where = {"Bucket": self._connection.bucket, "Prefix": self._prefix}
        more = {"KeyMarker": key, "UploadIdMarker": upload_id} if key else {}
        return self._connection.call(lambda s3: s3.list_multipart_uploads(**where, **more))  # type: ignore[arg-type]

    def _abort(self, name: str, upload_id: str) -> None:
        bucket = self._connection.bucket
        try:
            self._connection.call(lambda s3: s3.abort_multipart_upload(Bucket=bucket, Key=name, UploadId=upload_id), name)
        except Unavailable as error:
            if error.code != "upload_gone":  # another sweeper was faster
                raise


def _delete_batch(s3: S3Client, bucket: str, names: Sequence[str]) -> None:
    """Raises ClientError: of the server, or the first that it reports of a single name."""
    try:
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": name} for name in names], "Quiet": True})
    except ClientError as error:
        if error.response["Error"]["Code"] not in _NO_BATCHES:
            raise
        for name in names:
            s3.delete_object(Bucket=bucket, Key=name)
        return
    for failed in answer.get("Errors", []):
        code = failed.get("Code", "")
        if code != "NoSuchKey":
            status = 403 if code == "AccessDenied" else 503
            raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "DeleteObjects")  # type: ignore[typeddict-item]
