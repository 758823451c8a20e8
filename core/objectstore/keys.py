"""What a key of an object is, in every store."""

from __future__ import annotations

import re
from typing import Final

from core.errors import InvalidInput

_SEGMENT: Final = re.compile(r"(?!\.{1,2}\Z)[ -.0-\[\]-~]{1,255}")
_LENGTH: Final = 1024


def is_key(key: str) -> bool:
    return len(key) <= _LENGTH and all(_SEGMENT.fullmatch(segment) for segment in key.split("/"))


def check_key(key: str) -> str:
    """The key. Raises InvalidInput: it is none."""
    if not is_key(key):
        raise InvalidInput(f"not a key of an object: {key[:100]!r}", code="bad_key")
    return key


def check_prefix(prefix: str) -> str:
    """The folder of the prefix, without its slash; empty for the store's root. Raises InvalidInput."""
    folder, _, _ = prefix.rpartition("/")
    return check_key(folder) if folder or prefix.startswith("/") else ""


def check_range(offset: int, length: int | None) -> None:
    """Raises InvalidInput: the range begins before the object, or is shorter than nothing."""
    if offset < 0 or (length is not None and length < 0):
        raise InvalidInput(f"not a range of bytes: {length} from {offset} on", code="bad_range")
