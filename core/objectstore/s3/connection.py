"""A boto3 client for one bucket, and how often a call is tried.

The tries are counted here and nowhere else: botocore's own are off, since they know neither a 409 nor a body that is cut, and two loops
around each other multiply.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from core.errors import InvalidInput
from core.objectstore.s3.failures import CAUGHT, Place, failure, is_refusal
from core.telemetry import counter

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

TRIES: Final = 7
PATIENCE: Final = 30.0
"""Seconds after which nothing is tried again; with the last try's timeouts a call ends within a minute."""
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_CONFIG: Final = Config(
    signature_version="s3v4",
    connect_timeout=5,
    read_timeout=30,
    max_pool_connections=16,
    retries={"total_max_attempts": 1, "mode": "standard"},
    request_checksum_calculation="when_required",  # each write brings its own
    response_checksum_validation="when_required",  # what is read is checked by `store`, also when it comes in pieces
    user_agent_extra="filigrane",
)
calls: Final = counter("filigrane_s3_calls_total", "Calls to the S3 server, each try of them, as it bills them.", ["operation"])
retries: Final = counter("filigrane_s3_retries_total", "Calls to the S3 server that were tried again, by the error's code.", ["code"])


class Tries:
    """How often something is tried: pauses grow, at random, until there were enough of them or too much time went by."""

    def __init__(self, connection: Connection, key: str | None) -> None:
        self._connection = connection
        self._key = key
        self._began = time.monotonic()
        self._count = 0

    def failed(self, error: Exception) -> None:
        """Waits, and returns when another try makes sense. Raises what went wrong, in this project's words."""
        failed = failure(error, self._connection.place, self._key)
        self._count += 1
        if not failed.again or self._count == TRIES or time.monotonic() - self._began > PATIENCE:
            raise failed.error from error
        retries.labels(failed.error.code).inc()
        time.sleep(random.uniform(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**self._count)))  # noqa: S311 - it spreads load, no more


class Connection:
    """Calls to the S3 server, for any number of threads."""

    def __init__(self, bucket: str, endpoint_url: str) -> None:
        self.bucket = bucket
        self.place = Place(bucket, endpoint_url)
        self._client: S3Client | None = None
        self._lock = threading.Lock()

    def tries(self, key: str | None) -> Tries:
        return Tries(self, key)

    def call(self, action: Callable[[S3Client], T], key: str | None = None) -> T:
        """What the action returns. It is done again after what may pass: 409, 429, 5xx, timeouts, cut connections, damaged bytes.

        Raises:
            ObjectMissing, InvalidInput: what was asked for is not there, or makes no sense.
            Corrupt: other bytes than those promised came again and again.
            Unavailable: store_unavailable, store_full, store_forbidden or store_no_bucket.
        """
        tries = self.tries(key)
        while True:
            client = self.client()
            try:
                return action(client)
            except CAUGHT as error:
                if is_refusal(error):
                    self._forget(client)
                tries.failed(error)

    def client(self) -> S3Client:
        """The client of all threads. Raises Unavailable: it cannot be made."""
        with self._lock:
            if self._client is None:
                self._client = self._made()
            return self._client

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _forget(self, client: S3Client) -> None:
        """The next call reads the credentials anew: whoever changes the keys need not start the processes again."""
        with self._lock:
            if self._client is client:
                self._client = None

    def _made(self) -> S3Client:
        endpoint = self.place.endpoint or None
        config = _CONFIG.merge(Config(s3={"addressing_style": "path"})) if endpoint else _CONFIG
        try:
            session = boto3.session.Session()
            client = session.client("s3", region_name=session.region_name or "us-east-1", endpoint_url=endpoint, config=config)
        except ValueError as error:
            raise InvalidInput(f"FILIGRANE_S3_ENDPOINT_URL is no address: {endpoint}", code="settings_invalid") from error
        except BotoCoreError as error:
            raise failure(error, self.place, None).error from error
        client.meta.events.register("before-send.s3", _count)
        return client


def _count(event_name: str, **_: object) -> None:
    calls.labels(event_name.rpartition(".")[2]).inc()
