"""How long database, object store and bus take, and how often they do not answer: counted at the seam, for every implementation."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, TypeVar

from core.errors import Unavailable
from core.telemetry import counter, histogram

_SECONDS: Final = histogram(
    "filigrane_part_seconds",
    "Calls to database, object store and bus. A transaction counts from its begin to its commit.",
    ["part", "call"],
)
_ERRORS: Final = counter("filigrane_part_errors_total", "Calls that a part did not answer, by the error's code.", ["part", "call", "code"])
CALLS: Final = {
    "database": ("read", "write", "migrate"),
    "store": ("put", "get", "get_range", "stream", "head", "list", "delete", "join"),
    "bus": ("publish", "lag"),
}

T = TypeVar("T")


def metered(part: str, implementation: T) -> T:
    """The same object; its calls are timed and their errors counted from now on. It keeps its type, which some callers ask for."""
    for name in CALLS[part]:
        setattr(implementation, name, _timed(part, name, getattr(implementation, name)))
    return implementation


def _timed(part: str, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def timed(*args: Any, **named: Any) -> Any:
        started = time.perf_counter()
        with _counted(part, name):
            result = call(*args, **named)
        if isinstance(result, AbstractContextManager):
            return _context(part, name, result)
        if isinstance(result, Generator):
            return _pieces(part, name, result)
        _SECONDS.labels(part, name).observe(time.perf_counter() - started)
        return result

    return timed


@contextmanager
def _counted(part: str, name: str) -> Iterator[None]:
    try:
        yield
    except Unavailable as error:
        _ERRORS.labels(part, name, error.code).inc()
        raise


@contextmanager
def _context(part: str, name: str, result: AbstractContextManager[T]) -> Iterator[T]:
    started = time.perf_counter()
    with _counted(part, name), result as value:
        yield value
    _SECONDS.labels(part, name).observe(time.perf_counter() - started)


def _pieces(part: str, name: str, result: Generator[T, Any, Any]) -> Iterator[T]:
    """What counts is the wait for the pieces, not what is done with them."""
    waited = 0.0
    with _counted(part, name):
        while True:
            started = time.perf_counter()
            try:
                piece = next(result)
            except StopIteration:
                break
            waited += time.perf_counter() - started
            yield piece
    _SECONDS.labels(part, name).observe(waited)
