"""Structured logs on stderr, one JSON line per event, and counters."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any, Final

import structlog
from prometheus_client import Counter

_SECRET: Final = re.compile(r"token|password|secret|authorization|cookie", re.IGNORECASE)


def configure(role: str, *, level: int = logging.INFO) -> None:
    """Logs of this process: JSON on stderr with the role's name in every line."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            drop_secrets,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(role=role)


def drop_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Removes what is named like a secret: no token ever reaches a log."""
    for name in [name for name in event if _SECRET.search(name)]:
        event[name] = "***"
    return event


def counter(name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
    """A counter of this process."""
    return Counter(name, help_text, labels)
