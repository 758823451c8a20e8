"""Structured logs on stderr, one JSON line per event, and counters."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, Final

import structlog
from prometheus_client import Counter

_SECRET: Final = re.compile(r"token|password|secret|authorization|cookie", re.IGNORECASE)


def configure(role: str, *, level: int = logging.INFO) -> None:
    """Logs of this process, also those of libraries: JSON on stderr with the role's name in every line."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        partial(_with_role, role),
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


def _with_role(role: str, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # not a context variable: those of the configuring thread are not seen by the others
    event["role"] = role
    return event


def drop_secrets(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Removes what is named like a secret, at any depth: no token ever reaches a log."""
    return {name: _clean(name, value) for name, value in event.items()}


def _clean(name: Any, value: Any) -> Any:
    if isinstance(name, str) and _SECRET.search(name):
        return "***"
    if isinstance(value, Mapping):
        return {key: _clean(key, inner) for key, inner in value.items()}
    return [_clean(None, inner) for inner in value] if isinstance(value, (list, tuple)) else value


def counter(name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
    """A counter of this process."""
    return Counter(name, help_text, labels)
