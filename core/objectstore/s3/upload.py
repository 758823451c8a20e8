"""An object of many parts: nothing of it shows before `complete`, and each part is proven when it arrives."""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from core.errors import Corrupt, ObjectMissing, Unavailable
from core.objectstore.s3.connection import Connection
from core.objectstore.s3.reading import Stored, bare, look

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, ListPartsOutputTypeDef

PART: Final = 8 << 20
LEAST: Final = 5 << 20
"""The smallest part that S3 takes, but for the last."""
_MOST_PARTS: Final = 9_000  # S3 takes 10,000
_MD5_LENGTH: Final = 32


def part_size(total: int) -> int:
    """Bytes of a part, so that `total` bytes do not need more parts than S3 takes."""
    return max(PART, -(-total // _MOST_PARTS))


class Upload:
    """A multipart upload. Leaving the `with` block without `complete` aborts it; the uploads of who died are swept."""

    def __init__(self, connection: Connection, name: str, sha256: str | None) -> None:
        """Begins it. `sha256`: of the whole, in hex, where it is known."""
        self._connection = connection
        self._name = name
        self._parts: list[CompletedPartTypeDef] = []
        self._lengths: list[int] = []
        self._copied = False
        metadata = {"sha256": sha256} if sha256 else {}
        begun = connection.call(
            lambda s3: s3.create_multipart_upload(Bucket=connection.bucket, Key=name, ChecksumAlgorithm="SHA256", Metadata=metadata),
            name,
        )
        self._id = begun["UploadId"]
        self._open = True

    def add(self, data: bytes) -> None:
        """The next part: at least `LEAST`, but for the last. Raises Corrupt, Unavailable."""
        digest = hashlib.sha256(data).digest()
        number = len(self._parts) + 1

        def action(s3: S3Client) -> CompletedPartTypeDef:
            answer = s3.upload_part(
                Bucket=self._connection.bucket,
                Key=self._name,
                UploadId=self._id,
                PartNumber=number,
                Body=data,
                ChecksumSHA256=encoded(digest),
            )
            prove(self._name, data, digest, answer)
            return _part(number, answer)

        self._append(self._connection.call(action, self._name), len(data))

    def copy(self, source: Stored) -> bool:
        """The next part, by the server from another object. False: the server cannot, or what it says of the part does not prove it.

        Raises:
            ObjectMissing: the source is gone.
            Unavailable: nothing works now.
        """
        number = len(self._parts) + 1
        try:
            answer = self._connection.call(
                lambda s3: s3.upload_part_copy(
                    Bucket=self._connection.bucket,
                    Key=self._name,
                    UploadId=self._id,
                    PartNumber=number,
                    CopySource={"Bucket": self._connection.bucket, "Key": source.name},
                    CopySourceIfMatch=f'"{source.etag}"',
                ),
                source.name,
            )
        except Unavailable as error:
            if error.code != "store_unavailable":
                raise
            return False
        result = answer.get("CopyPartResult", {})
        if not _is_copy(source, result):
            return False
        self._append(_part(number, result), source.length)
        self._copied = True
        return True

    def complete(self) -> str:
        """Shows the object. Returns its ETag.

        Raises:
            Corrupt: the server copied a part that is not as long as its source; nothing is shown.
            Unavailable.
        """
        if self._copied and self._listed_lengths() != self._lengths:
            raise Corrupt(f"{self._name}: the server copied a part that is not as long as its source", code="length_mismatch")
        try:
            etag = self._connection.call(self._complete, self._name)
        except Unavailable:
            etag = self._expected_etag()
            if not self._is_shown(etag):
                raise
        self._open = False
        return etag

    def _complete(self, s3: S3Client) -> str:
        answer = s3.complete_multipart_upload(
            Bucket=self._connection.bucket, Key=self._name, UploadId=self._id, MultipartUpload={"Parts": self._parts}
        )
        return bare(answer["ETag"])

    def _is_shown(self, etag: str) -> bool:
        """Whether it was completed after all: when the first answer is lost, the second try finds no upload any more."""
        with suppress(ObjectMissing):
            return etag != "" and look(self._connection, self._name).etag == etag
        return False

    def _expected_etag(self) -> str:
        """As S3 makes it of the parts' MD5s; empty where the parts' ETags are something else."""
        try:
            digests = b"".join(bytes.fromhex(bare(part["ETag"])) for part in self._parts)
        except ValueError:
            return ""
        return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(self._parts)}"

    def _listed_lengths(self) -> list[int]:
        """A copy may be reported and yet be empty: what the server holds is asked for before it is shown."""
        lengths: list[int] = []
        marker: int | None = 0
        while marker is not None:
            page = self._listed(marker)
            lengths += [part["Size"] for part in page.get("Parts", [])]
            marker = page["NextPartNumberMarker"] if page.get("IsTruncated") else None
        return lengths

    def _listed(self, marker: int) -> ListPartsOutputTypeDef:
        return self._connection.call(
            lambda s3: s3.list_parts(Bucket=self._connection.bucket, Key=self._name, UploadId=self._id, PartNumberMarker=marker), self._name
        )

    def _append(self, part: CompletedPartTypeDef, length: int) -> None:
        self._parts.append(part)
        self._lengths.append(length)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Tried once: where the server is away, the sweep does it."""
        if self._open:
            with suppress(Exception):
                client = self._connection.client()
                client.abort_multipart_upload(Bucket=self._connection.bucket, Key=self._name, UploadId=self._id)


def encoded(digest: bytes) -> str:
    """A digest as S3 writes it."""
    return base64.b64encode(digest).decode()


def prove(name: str, data: bytes, digest: bytes, answer: Any) -> None:
    """Compares what was sent with what the server says arrived: its SHA-256, else an ETag that is an MD5. Raises Corrupt."""
    said, etag = answer.get("ChecksumSHA256"), bare(answer.get("ETag", ""))
    if said is None and len(etag) == _MD5_LENGTH and not answer.get("ServerSideEncryption"):
        same = etag == hashlib.md5(data, usedforsecurity=False).hexdigest()
    else:
        same = said in (None, encoded(digest))
    if not same:
        raise Corrupt(f"{name}: other bytes arrived than were sent")


def _is_copy(source: Stored, result: Any) -> bool:
    """Whether a copied part is proven to be the source: by its SHA-256, else by an MD5 that both of them have for an ETag."""
    said = result.get("ChecksumSHA256")
    if said and source.sha256:
        return bool(said == encoded(bytes.fromhex(source.sha256)))
    return len(source.etag) == _MD5_LENGTH and bare(result.get("ETag", "")) == source.etag


def _part(number: int, answer: Any) -> CompletedPartTypeDef:
    """What `complete` has to say of a part: its checksum too, where the server gave one."""
    if answer.get("ChecksumSHA256"):
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": answer["ChecksumSHA256"]}
    return {"PartNumber": number, "ETag": answer["ETag"]}
