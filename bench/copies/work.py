"""Tasks on a few processes, told on stderr."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final, TypeVar

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
    results = []
    with ProcessPoolExecutor(PROCESSES, context, start, given) as pool:
        for done, result in enumerate(pool.map(function, tasks, chunksize=max(1, min(16, len(tasks) // 20))), 1):
            results.append(result)
            if done * _TELLS // len(tasks) != (done - 1) * _TELLS // len(tasks):
                tell(f"{what}: {done} of {len(tasks)}")
    return results


def tell(what: str) -> None:
    """What is being done, to who waits for it."""
    print(what, file=sys.stderr, flush=True)
