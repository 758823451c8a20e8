"""Processes of tests. They are forked from a server that has loaded what takes a second to load, so a start takes a moment."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from typing import Any, Final

_context: Final = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["matcher.worker", "filigrane.roles", "api_shim.server", "core.bus.kafka"])


def start(target: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """A process that calls the function, with the environment of now."""
    process = _context.Process(target=_call, args=(dict(os.environ), target, arguments))
    process.start()
    return process


def _call(environment: Mapping[str, str], target: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)
