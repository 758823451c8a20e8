"""The crawler's figures."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, Protocol

from core.telemetry import counter, gauge, histogram
from crawler.cycle import Cycle
from crawler.journal import Image, Record

requests_total = counter("filigrane_crawler_requests_total", "Requests by kind and outcome.", ["kind", "outcome"])
bytes_total = counter("filigrane_crawler_bytes_total", "Bytes of bodies that were fetched, as they came over the wire.", ["kind"])
closings_total = counter("filigrane_crawler_closings_total", "Closings by what became of them.", ["outcome"])
sends_total = counter("filigrane_crawler_sends_total", "Pieces whose messages were published, or left to heal.", ["outcome"])
_RUNNING: Final = gauge("filigrane_crawler_sessions", "Sessions whose cycle runs here.")
_LEASES: Final = gauge("filigrane_crawler_leases", "Leases on domains that this worker holds.")
_IN_FLIGHT: Final = gauge("filigrane_crawler_requests_in_flight", "Requests that wait for their answer.")
_UNSTORED: Final = gauge(
    "filigrane_crawler_closings_unstored", "Closed segments and pieces that wait for the object store or the database."
)
_UNTIL_SENT: Final = histogram(
    "filigrane_crawler_publication_seconds",
    "From the answer with a picture to the acknowledgement of its message by the bus.",
    buckets=(0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0),
)


class Holder(Protocol):
    def domains(self) -> Collection[str]: ...


def watch(cycles: dict[int, Cycle], holdings: Holder) -> None:
    """From now on the gauges tell of this worker."""
    _RUNNING.set_function(lambda: len(cycles))
    _LEASES.set_function(lambda: len(holdings.domains()))
    _IN_FLIGHT.set_function(lambda: sum(cycle.in_flight for cycle in list(cycles.values())))
    _UNSTORED.set_function(lambda: sum(cycle.unstored for cycle in list(cycles.values())))


def published(records: Iterable[Record], now: float) -> None:
    """The messages of these records are acknowledged. `now`: seconds since 1970."""
    for record in records:
        if isinstance(record, Image) and record.tar is not None:
            _UNTIL_SENT.observe(max(0.0, now - record.at))
