"""The version of this program."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as _installed


@cache
def version() -> str:
    """As it was installed."""
    try:
        return _installed("filigrane")
    except PackageNotFoundError:
        return "(not installed)"
