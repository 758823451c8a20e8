"""The Kafka bus on a real broker."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.bus.kafka import KafkaBus
from tests.core.contract_bus import BusContract, Opener


def new_prefix() -> str:
    return f"t{uuid.uuid4().hex[:12]}."


@dataclass(frozen=True)
class KafkaOpener:
    """Names of its own in a broker that is shared."""

    servers: str
    options: dict[str, Any] = field(
        default_factory=lambda: {"session_timeout_ms": 1500, "heartbeat_interval_ms": 300, "max_poll_interval_ms": 3000}
    )
    prefix: str = field(default_factory=new_prefix)
    partitions: int = 8

    def __call__(self) -> KafkaBus:
        return KafkaBus(self.servers, prefix=self.prefix, options=self.options, partitions=self.partitions)


class TestKafkaBus(BusContract):
    @pytest.fixture
    def opener(self, kafka_server: str) -> Opener:
        return KafkaOpener(kafka_server)


@pytest.fixture
def opener(kafka_server: str) -> KafkaOpener:
    return KafkaOpener(kafka_server)


@pytest.fixture
def bus(opener: KafkaOpener) -> Iterator[KafkaBus]:
    bus = opener()
    yield bus
    bus.close()
