"""kafka-python's clients: what they are told, how they are made and given up, and what their errors mean here."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import kafka
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import (
    AuthorizationError,
    CorruptRecordError,
    IllegalSaslStateError,
    KafkaConfigurationError,
    KafkaError,
    KafkaTimeoutError,
    RetriableError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)

from core.errors import Corrupt, InvalidInput, Unavailable

T = TypeVar("T")
DELIVERY_SECONDS: Final = 15.0
_CLOSING_SECONDS: Final = 2.0
_ASKING_SECONDS: Final = 5.0
_DEFAULTS: Final[Mapping[str, Any]] = {
    "client_id": "filigrane",
    "bootstrap_timeout_ms": 5_000,
    "request_timeout_ms": 10_000,
    "reconnect_backoff_max_ms": 500,  # back within a second of the brokers
    "metadata_max_age_ms": 10_000,  # how late new partitions are noticed
    "metrics_enabled": False,
    # the producer's
    "linger_ms": 10,  # publishing ends with a flush: this fills batches, and delays nothing
    "batch_size": 65_536,
    "compression_type": "lz4",
    "max_block_ms": 5_000,
    "delivery_timeout_ms": int(DELIVERY_SECONDS * 1000),
    "max_request_size": 1_100_000,  # MAX_MESSAGE_BYTES and its frame
    # the consumers'
    "session_timeout_ms": 6_000,
    "heartbeat_interval_ms": 2_000,
    "max_partition_fetch_bytes": 2_097_152,
}
_FIXED: Final[Mapping[str, Any]] = {
    "acks": "all",
    "enable_idempotence": True,
    "enable_auto_commit": False,
    "auto_offset_reset": "none",  # a jump is ours to make, and to tell
    "allow_auto_create_topics": False,  # with other settings than ours
    "isolation_level": "read_uncommitted",
}
_NOT_TO_BE_SET: Final = {*_FIXED, "bootstrap_servers", "api_version", "group_id", "kafka_client", "transactional_id"}
_DENIED: Final = (AuthorizationError, SaslAuthenticationFailedError, UnsupportedSaslMechanismError, IllegalSaslStateError)
_abandoned: Final[list[Any]] = []
"""Clients that came over a fork: closing one would speak on its parent's connections, and so would its finalizer."""

# It tells of each attempt to reach a broker that is away, at ERROR, some a second and client. What matters reaches our callers as an error.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


class Clients:
    """Makes clients; holds this process's producer and admin client."""

    def __init__(self, servers: str, options: Mapping[str, Any], api_version: str) -> None:
        """Raises InvalidInput."""
        _check_options(options)
        if "@" in servers:
            raise InvalidInput("FILIGRANE_BUS_URL names brokers only; credentials go to FILIGRANE_KAFKA_OPTIONS", code="settings_invalid")
        version = tuple(int(part) for part in api_version.split(".")) if api_version else None
        self._config = {**_DEFAULTS, **options, **_FIXED, "bootstrap_servers": servers.split(","), "api_version": version}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._producer: KafkaProducer | None = None
        self._admin: KafkaAdminClient | None = None

    def consumer(self, group: str | None) -> kafka.KafkaConsumer:
        """A new one, the caller's to close. Raises Unavailable."""
        return self._make(kafka.KafkaConsumer, group_id=group)

    def producer(self) -> KafkaProducer:
        """Raises Unavailable."""
        with self._ours():
            if self._producer is None:
                self._producer = self._make(KafkaProducer)
            return self._producer

    def admin(self) -> KafkaAdminClient:
        """Raises Unavailable."""
        with self._ours():
            if self._admin is None:
                self._admin = self._make(KafkaAdminClient)
            return self._admin

    def ask(self, doing: str, question: Callable[[KafkaAdminClient], T]) -> T:
        """What the admin client answers; tried again for some seconds while its connections are coming up or full. Raises Unavailable."""
        until = time.monotonic() + _ASKING_SECONDS
        with translated(doing):
            while True:
                try:
                    return question(self.admin())
                except RetriableError:
                    if time.monotonic() >= until:
                        raise
                    time.sleep(0.05)

    def drop_producer(self, producer: KafkaProducer) -> None:
        """Gives up what it still holds; the next one starts empty."""
        with self._ours():
            if self._producer is producer:
                self._producer = None
        _close_producer(producer, 0)

    def close(self) -> None:
        with self._ours():
            producer, self._producer = self._producer, None
            admin, self._admin = self._admin, None
        if producer is not None:
            _close_producer(producer, _CLOSING_SECONDS)
        if admin is not None:
            admin.close()

    @contextmanager
    def _ours(self) -> Iterator[None]:
        if self._pid != os.getpid():  # the lock too may have been held when we were forked
            self._pid, self._lock = os.getpid(), threading.Lock()
            _abandoned.extend((self._producer, self._admin))
            self._producer = self._admin = None
        with self._lock:
            yield

    def _make(self, kind: Any, **more: Any) -> Any:
        """A client with what it knows of the configuration. One that fails to start leaves its thread and sockets: they are closed here."""
        networks: list[Any] = []

        def network(**config: Any) -> Any:
            networks.append(kind.DEFAULT_CONFIG["kafka_client"](**config))
            return networks[-1]

        config = {name: value for name, value in self._config.items() if name in kind.DEFAULT_CONFIG}
        try:
            with translated("connecting"):
                return kind(**config, **more, kafka_client=network)
        except BaseException:
            for made in networks:
                made.close()
            raise


def _close_producer(producer: KafkaProducer, seconds: float) -> None:
    try:
        producer.close(timeout=seconds)
    except KafkaTimeoutError:  # then its thread still runs, with what was published by nobody who still waits (kafka-python 3.0.12)
        producer._sender.force_close()
        with suppress(KafkaTimeoutError):  # its thread ends when it can
            producer.close(timeout=_CLOSING_SECONDS)


def _check_options(options: Mapping[str, Any]) -> None:
    known = {name for kind in (kafka.KafkaConsumer, KafkaProducer, KafkaAdminClient) for name in kind.DEFAULT_CONFIG}
    for name in options:
        if name in _NOT_TO_BE_SET:
            raise InvalidInput(f"FILIGRANE_KAFKA_OPTIONS: {name} is not to be changed", code="settings_invalid")
        if name not in known:
            raise InvalidInput(f"FILIGRANE_KAFKA_OPTIONS: no Kafka client has an option {name}", code="settings_invalid")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turns kafka-python's errors into the project's. Their own texts may quote the configuration, so they are not passed on."""
    try:
        yield
    except KafkaConfigurationError as error:
        raise InvalidInput(f"FILIGRANE_KAFKA_OPTIONS: {error}", code="settings_invalid") from error
    except _DENIED as error:
        text = f"{doing}: Kafka does not let us in ({type(error).__name__}); check the credentials in FILIGRANE_KAFKA_OPTIONS"
        raise Unavailable(text, code="bus_denied", retry_after=10) from error
    except CorruptRecordError as error:
        raise Corrupt(f"{doing}: a message on the brokers' disks is damaged", code="bus_corrupt") from error
    except KafkaTimeoutError as error:
        raise Unavailable(f"{doing}: {_HINT}", code="bus_unavailable" if doing == "connecting" else "bus_timeout") from error
    except KafkaError as error:
        raise Unavailable(f"{doing}: {type(error).__name__}; {_HINT}", code="bus_unavailable") from error


# A broker that does not let us in hangs up, and kafka-python 3.0.12 most often overlooks the reason that came with it.
_HINT: Final = "no Kafka broker answers in time; check FILIGRANE_BUS_URL, TLS and SASL in FILIGRANE_KAFKA_OPTIONS, and the brokers"
