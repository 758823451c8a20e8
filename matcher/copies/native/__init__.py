"""The native library: loops over pixels and codes in C, which `hatch_build.py` compiles into one file beside this one.

Every function in it has a form in NumPy with the same results (up to rounding, where its docstring says so), which serves where there is
no library: no compiler when the package was built, or FILIGRANE_PURE=1. Calls by ctypes let go of the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # whoever builds a wheel has no NumPy
    import numpy as np
    import numpy.typing as npt

FOLDER: Final = Path(__file__).parent
LIBRARY: Final = FOLDER / "native.so"


def sources(folder: Path = FOLDER) -> list[Path]:
    """The C files and headers, in a fixed order."""
    return sorted([*folder.glob("*.c"), *folder.glob("*.h")])


def build_id(folder: Path = FOLDER) -> str:
    """What the library must have been built from: a digest (hex) of the sources. It is compiled into the library."""
    digest = hashlib.sha256()
    for path in sources(folder):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def library() -> ctypes.CDLL | None:
    """The library; None where the pure forms serve. Warns (RuntimeWarning) of one that is there and cannot be used."""
    return None if os.environ.get("FILIGRANE_PURE", "") not in ("", "0") else load(LIBRARY)


@lru_cache
def load(path: Path) -> ctypes.CDLL | None:
    """The library in this file, if there is one and it was built from the sources beside it."""
    if not path.exists():
        return None
    try:
        found = ctypes.CDLL(str(path))
        found.filigrane_build.restype = ctypes.c_char_p
        built = found.filigrane_build().decode()
    except (OSError, AttributeError) as error:
        _warn(path, str(error))
        return None
    if built == build_id(path.parent):
        return found
    _warn(path, "it was built from other sources")
    return None


def address(array: npt.NDArray[np.generic]) -> ctypes.c_void_p:
    """Where a contiguous array begins."""
    return ctypes.c_void_p(array.ctypes.data)


def _warn(path: Path, reason: str) -> None:
    message = f"the native library {path} is not used: {reason}. Searching is slower until it is built anew: python hatch_build.py"
    warnings.warn(message, RuntimeWarning, stacklevel=4)
