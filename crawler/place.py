"""A crawler's place on its machine: a folder for what is not stored yet, and the name under which it holds leases."""

from __future__ import annotations

import fcntl
import itertools
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from core.errors import Conflict, Unavailable

FIRST: Final = "local"


@dataclass(frozen=True, slots=True)
class Place:
    """`holder` is drawn once into the folder: no two machines share one, and who starts again on this disk is the same holder."""

    folder: Path
    holder: str


@contextmanager
def taken(data: Path, name: str | None) -> Iterator[Place]:
    """The place of that name, or the first one that is free (local, local-2, ...), for one process at a time.

    Raises:
        Conflict: another process has the name.
        Unavailable: the disk is full.
    """
    for place in [name] if name else _names():
        folder = data / "crawler" / place
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            if _locked(lock):
                yield Place(folder, _holder(folder))
                return
    raise Conflict(f"a crawler named {name!r} already runs on {data}", code="crawler_running")


def _names() -> Iterator[str]:
    yield FIRST
    yield from (f"{FIRST}-{number}" for number in itertools.count(2))


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _holder(folder: Path) -> str:
    """What was drawn; whole or not there, whenever we are killed."""
    path = folder / "holder"
    if not path.exists():
        draft = folder / "holder.new"
        try:
            with draft.open("w") as file:
                file.write(f"{folder.name[:80]}-{secrets.token_hex(8)}")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError as error:
            raise Unavailable(f"no room for the crawler's name: {error.strerror}", code="disk_full", retry_after=5) from error
    return path.read_text()
