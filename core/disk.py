"""What it takes that bytes are on the disk, and stay there; and that nobody else reads them."""

from __future__ import annotations

import os
from pathlib import Path


def write_all(descriptor: int, data: bytes) -> int:
    """Writes all of the bytes, however many the system takes at a time; their number. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return len(data)


def sync_folder(folder: Path) -> None:
    """Returns when the names in the folder survive the loss of power: a new file does so only with its folder. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_folder(folder: Path) -> None:
    """Makes the folder, for its user alone, where it is not there yet: in the data folder lie keys of marks, and all tokens rest on its
    secret. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
