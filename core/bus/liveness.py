"""Whether another process of this machine is gone for certain, so that nobody has to wait for its lease to end.

Where that cannot be known (no /proc, another container's processes) the answer is no, and the lease decides.
"""

from __future__ import annotations

import os
from pathlib import Path


def identity() -> str:
    """Names this process for `is_gone`: namespace of process ids, id, and start in ticks since boot. Empty where unknown."""
    start = _start_of(os.getpid())
    return f"{_namespace()} {os.getpid()} {start}" if start else ""


def is_gone(named: str) -> bool:
    """Whether the process that gave this `identity` has certainly ended."""
    if not named:
        return False
    namespace, pid, start = named.split()
    return namespace == _namespace() and _start_of(int(pid)) != start


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return "unknown"


def _start_of(pid: int) -> str | None:
    """Field 22 of /proc/<pid>/stat; None for a process that does not run (a zombie does not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]
