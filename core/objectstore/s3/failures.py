"""What went wrong, in this project's words: the error to raise, and whether the same call may still succeed.

The texts name the place and say what to do. What a server says of itself is left out but for its code: it may quote keys and signatures.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)

from core.errors import Corrupt, FiligraneError, InvalidInput, ObjectMissing, Unavailable

CAUGHT: Final = (ClientError, BotoCoreError, OSError, Corrupt)
"""What a call may raise that `failure` understands."""

_CREDENTIALS: Final = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound)
_FULL: Final = frozenset({"InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "StorageFull"})
_FULL_TEXTS: Final = ("no space left", "quota exceeded", "no free volumes", "no writable volumes")
_DAMAGED: Final = frozenset(
    {"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "IncompleteBody", "InvalidDigest", "MalformedXML"}
)
"""What we sent arrived as something else."""
_UNFIT: Final = frozenset({"InvalidPart", "InvalidPartOrder", "EntityTooSmall"})
"""The parts that the server holds are not those that it told of."""
_BUSY: Final = frozenset({"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "OperationAborted"})
_NESTED: Final = frozenset({"ObjectParentIsFile", "ExistingObjectIsDirectory", "ExistingObjectIsFile"})
_ABSENT: Final = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchVersion"})


class Place(NamedTuple):
    """Which bucket, and where: for texts."""

    bucket: str
    endpoint: str

    def __str__(self) -> str:
        return f"the object store s3://{self.bucket} at {self.endpoint or 'Amazon S3'}"


class Failure(NamedTuple):
    error: FiligraneError
    again: bool
    """Whether the same call may still succeed."""


def failure(error: Exception, place: Place, key: str | None) -> Failure:
    """What an error of `CAUGHT` means; `key` is the object that was asked for, if any."""
    if isinstance(error, Corrupt):
        return Failure(error, again=True)
    if isinstance(error, ClientError):
        return _answered(error, place, key)
    if isinstance(error, _CREDENTIALS):
        text = f"there are no credentials for {place}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile that boto3 finds"
        return Failure(Unavailable(text, code="store_forbidden", retry_after=60), again=False)
    if isinstance(error, ParamValidationError):
        return Failure(InvalidInput(f"not a bucket or key that S3 takes: {place}, {key!r}", code="settings_invalid"), again=False)
    text = f"{place} does not answer ({type(error).__name__}): see that it runs and can be reached from here"
    return Failure(Unavailable(text, code="store_unavailable", retry_after=5), again=True)


def _answered(error: ClientError, place: Place, key: str | None) -> Failure:
    """What an answer of the server means."""
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket" or (key is None and code in _ABSENT):
        return Failure(_no_bucket(place), again=False)
    if code in _ABSENT:
        return Failure(ObjectMissing(f"no object {key}"), again=False)
    if code in _NESTED:
        return Failure(InvalidInput(f"{key}: another key is a prefix of this one, or this one of it", code="bad_key"), again=False)
    if _is_full(error, code, status):
        return Failure(Unavailable(f"{place} is full; free some space", code="store_full", retry_after=60), again=False)
    if code == "NoSuchUpload":
        return Failure(Unavailable(f"{key}: the upload is gone; put it anew", code="upload_gone"), again=False)
    if status == 412:
        return Failure(Unavailable(f"{key} was replaced while it was read; read it anew", code="object_replaced"), again=False)
    if status in (401, 403):
        return Failure(_forbidden(place, code), again=False)
    if code in _DAMAGED:
        return Failure(Corrupt(f"{key}: other bytes than were sent arrived at {place} ({code})"), again=True)
    if code in _UNFIT:
        return Failure(Corrupt(f"{key}: {place} does not hold the parts that it told of ({code})"), again=False)
    text = f"{place} answered {status} {code}; try again later"
    again = code in _BUSY or status in (409, 429) or (status >= 500 and status != 501)
    return Failure(Unavailable(text, code="store_unavailable", retry_after=5), again)


def is_refusal(error: Exception) -> bool:
    """Whether the server does not take the credentials, or not any more."""
    return isinstance(error, ClientError) and error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (401, 403)


def _no_bucket(place: Place) -> Unavailable:
    option = f" --endpoint-url {place.endpoint}" if place.endpoint else ""
    text = f"{place} has no such bucket; make it: aws s3api create-bucket --bucket {place.bucket}{option}"
    return Unavailable(text, code="store_no_bucket", retry_after=60)


def _forbidden(place: Place, code: str) -> Unavailable:
    advice = {
        "RequestTimeTooSkewed": "the clock of this machine or of the server is wrong; set it",
        "ExpiredToken": "the credentials have expired; renew them",
    }.get(code, "check the access key, its secret and what they may do with the bucket")
    return Unavailable(f"{place} refuses us ({code}): {advice}", code="store_forbidden", retry_after=60)


def _is_full(error: ClientError, code: str, status: int) -> bool:
    """By its code, its status, or the words of the operating system beneath it."""
    said = str(error.response.get("Error", {}).get("Message", "")).lower()
    return code in _FULL or status == 507 or any(text in said for text in _FULL_TEXTS)
