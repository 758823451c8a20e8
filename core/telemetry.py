"""Structured logs on stderr, one JSON line per event; and the figures that `/metrics` shows, declared where they are counted."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import MutableMapping, Sequence
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
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
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
