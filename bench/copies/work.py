"""Tasks on a few processes, told on stderr."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final, TypeVar

from rich.console import Console
from rich.progress import track

PROCESSES: Final = 2
_TELLS: Final = 10

Task = TypeVar("Task")
Result = TypeVar("Result")


def spread(
    function: Callable[[Task], Result], tasks: Sequence[Task], what: str, start: Callable[..., None] | None = None, *given: Any
) -> list[Result]:
    """The function's results, in order. `start(*given)` runs first in each process; both are importable by name."""
    if not tasks:
        return []
    # fresh interpreters: after a fork the threads of FAISS and OpenCV would be gone
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, context, start, given) as pool:
        results = pool.map(function, tasks, chunksize=max(1, min(16, len(tasks) // 20)))
        return list(followed(results, len(tasks), what))


def followed(results: Iterable[Result], count: int, what: str) -> Iterator[Result]:
    """The results, while a bar (on a terminal) or a line for each tenth tells how many have come."""
    if sys.stderr.isatty():
        yield from track(results, what, count, console=Console(stderr=True))
        return
    for done, result in enumerate(results, 1):
        yield result
        if done * _TELLS // count != (done - 1) * _TELLS // count:
            tell(f"{what}: {done} of {count}")


def tell(what: str) -> None:
    """What is being done, to who waits for it."""
    print(what, file=sys.stderr, flush=True)
