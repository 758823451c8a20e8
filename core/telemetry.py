"""Structured logs on stderr, one JSON line per event; and the figures that `/metrics` shows, declared where they are counted."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import structlog
from prometheus_client import Counter, Gauge, Histogram

from core import scrub
from core.version import version


def configure(role: str, *, level: int = logging.INFO) -> None:
    """Logs of this process, also those of libraries: JSON on stderr, with role, host, process and version in every line."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        partial(_with_process, {"role": role, "host": socket.gethostname(), "version": version()}),
        drop_secrets,
    ]
    structlog.configure(
        processors=[Repeats(), *shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    render: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.JSONRenderer(),
    ]
    foreign: list[structlog.typing.Processor] = [structlog.stdlib.ExtraAdder(), *shared]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=foreign, processors=render))
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(max(level, logging.WARNING))  # what libraries say below that is theirs


class Repeats:
    """Says a warning with a code once in QUIET seconds: while a part is away, every loop meets it again each second.

    Lines are the same when they differ in `_ACCIDENTAL` fields only: about another session, job or picture is another line. The next
    one that is said has in `repeats` how many were not.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def __call__(self, _: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Raises DropEvent."""
        if method != "warning" or "code" not in event:
            return event
        with self._lock:
            repeats = self._count(_sameness(event), self._clock())
        return {**event, "repeats": repeats} if repeats else event

    def _count(self, key: str, now: float) -> int:
        at, repeats = self._said.get(key, (-QUIET, 0))
        if now - at < QUIET:
            self._said[key] = at, repeats + 1
            raise structlog.DropEvent
        if len(self._said) >= _REMEMBERED:
            self._said = {each: said for each, said in self._said.items() if now - said[0] < QUIET}
        self._said[key] = now, 0
        return repeats


def _sameness(event: Mapping[str, Any]) -> str:
    return repr(sorted((name, str(value)) for name, value in event.items() if name not in _ACCIDENTAL))


QUIET: Final = 10.0
_REMEMBERED: Final = 1000
_ACCIDENTAL: Final = frozenset({"attempt", "details", "error", "reason"})


def _with_process(process: dict[str, str], _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # no context variables: those of the configuring thread are not seen by the others
    event.update(process, pid=os.getpid())
    return event


def drop_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Removes what is named or looks like a secret, at any depth: no token ever reaches a log."""
    return {name: scrub.named(name, value) for name, value in event.items()}


# --- figures


class Figure(NamedTuple):
    """What the documentation says of a metric."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


SECONDS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Buckets for what is waited for."""
_declared: Final[dict[str, Figure]] = {}


def counter(name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
    """A counter of this process. Labels take few values: never a URL, a domain or an account."""
    _declare(name.removesuffix("_total") + "_total", "counter", help_text, labels)
    return Counter(name, help_text, labels)


def gauge(name: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
    """A figure that goes up and down."""
    _declare(name, "gauge", help_text, labels)
    return Gauge(name, help_text, labels)


def histogram(name: str, help_text: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS) -> Histogram:
    """How long things took, in seconds."""
    _declare(name, "histogram", help_text, labels)
    return Histogram(name, help_text, labels, buckets=buckets)


def _declare(name: str, kind: str, help_text: str, labels: Sequence[str]) -> None:
    _declared[name] = Figure(name, kind, tuple(labels), help_text)


def figures() -> list[Figure]:
    """Every figure that the modules loaded so far declare, by name."""
    return [_declared[name] for name in sorted(_declared)]
