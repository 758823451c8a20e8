"""Messages a second through each bus, and the time from publish to poll: the embedded one and Kafka, in one run.

    python -m bench.bus [--quick]

Messages have 500 bytes and 1,000 keys, and are published 500 at a time, as pieces of a crawl are. Kafka is the one broker that the
tests start, or the one that FILIGRANE_TEST_KAFKA names.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core.bus import Bus, Consumer, Follower, Outgoing
from core.bus.embedded import EmbeddedBus
from core.bus.kafka import KafkaBus
from tests.servers import kafka

OUT = Path("bench-out")
_AT_ONCE = 500
_SIZE = 500


def measure(name: str, bus: Bus, messages: int, questions: int) -> dict[str, Any]:
    bus.publish([Outgoing("warm", "k", b"")])
    consumer = bus.consume("images", "bench")
    consumer.poll(2)
    publishing = _seconds(lambda: _publish(bus, messages))
    consuming = _seconds(lambda: _consume(consumer, messages))
    consumer.close()
    latencies = _latencies(bus, questions)
    return {
        "bus": name,
        "publish_per_s": round(messages / publishing),
        "consume_per_s": round(messages / consuming),
        "latency_median_ms": round(statistics.median(latencies) * 1000, 1),
        "latency_p95_ms": round(statistics.quantiles(latencies, n=20)[-1] * 1000, 1),
    }


def _seconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _publish(bus: Bus, messages: int) -> None:
    value = os.urandom(_SIZE // 2).hex().encode()  # half as dense as random bytes, like JSON with digests
    for start in range(0, messages, _AT_ONCE):
        bus.publish([Outgoing("images", f"key{n % 1000}", value) for n in range(start, start + _AT_ONCE)])


def _consume(consumer: Consumer, messages: int) -> None:
    seen = 0
    while seen < messages:
        found = consumer.poll(1, _AT_ONCE)
        consumer.commit(found)
        seen += len(found)


def _latencies(bus: Bus, questions: int) -> list[float]:
    """Seconds from the call of publish, of one message, until a follower that waits has it."""
    follower = bus.follow("results", "latest")
    arrived: list[float] = []
    listening = threading.Thread(target=_listen, args=(follower, arrived, questions))
    listening.start()
    sent = []
    for number in range(questions):
        sent.append(time.perf_counter())
        bus.publish([Outgoing("results", "k", b"x" * _SIZE)])
        while len(arrived) <= number:
            time.sleep(0.0002)
    listening.join()
    follower.close()
    return [there - begun for begun, there in zip(sent, arrived, strict=True)]


def _listen(follower: Follower, arrived: list[float], count: int) -> None:
    while len(arrived) < count:
        arrived.extend(time.perf_counter() for _ in follower.poll(1))


@contextmanager
def _broker(folder: Path) -> Iterator[str]:
    if named := os.environ.get("FILIGRANE_TEST_KAFKA"):
        yield named
        return
    with kafka.Kafka(folder) as broker:
        yield broker.bootstrap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a tenth of the messages, once")
    quick = parser.parse_args().quick
    messages, questions = (2_000, 20) if quick else (20_000, 200)
    rows = []
    with tempfile.TemporaryDirectory() as folder, _broker(Path(folder) / "kafka") as servers:
        for run in range(1, 2 if quick else 4):
            embedded = EmbeddedBus(Path(folder) / f"bus{run}.sqlite")
            cluster = KafkaBus(servers, prefix=f"bench{uuid.uuid4().hex[:8]}.")
            rows += [{"run": run, **measure(name, bus, messages, questions)} for name, bus in (("embedded", embedded), ("Kafka", cluster))]
            embedded.close()
            cluster.close()
    report(rows)


def report(rows: list[dict[str, Any]]) -> None:
    """JSON and a Markdown table, on paper and on the screen."""
    OUT.mkdir(exist_ok=True)
    (OUT / "bus.json").write_text(json.dumps(rows, indent=1) + "\n")
    lines = [
        "| run | bus | published a second | consumed a second | publish to poll, median ms | 95 % ms |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(str(cell) for cell in row.values())} |" for row in rows),
    ]
    (OUT / "bus.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
