"""Takes secrets out of what is about to be logged or shown: by the name under which a value stands, and by its look inside of texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

HIDDEN: Final = "***"
_NAMED: Final = re.compile(r"token|password|secret|authorization|cookie", re.IGNORECASE)
_WORDS: Final = r"password|passwd|secret|token|signature|credential|api_?key|access_?key"
_PATTERNS: Final = (
    # scheme://user:password@host, also with an @ in the password
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)[^\s/?#\"'<>]*@"), rf"\1{HIDDEN}@"),
    # Authorization: Token abc...
    (re.compile(r"\b(token|bearer|basic)\s+(?=\S*\d)[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    # ?token=abc, password=abc of a connection string, {"password": "abc"}
    (re.compile(rf"(\b[\w-]{{0,40}}(?:{_WORDS})[\w-]{{0,40}}=)[^\s&\"',;]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(rf"([\"'][\w-]{{0,40}}(?:{_WORDS})[\w-]{{0,40}}[\"']\s*:\s*)(\"[^\"]*\"|'[^']*')", re.IGNORECASE), rf'\1"{HIDDEN}"'),
)


def text(value: str) -> str:
    """The text without credentials in URLs, authorization headers, and values of parameters that are named like secrets."""
    for pattern, replacement in _PATTERNS:
        value = pattern.sub(replacement, value)
    return value


def named(name: Any, value: Any) -> Any:
    """The value that stands under the name, at any depth; hidden as a whole where the name is one of a secret."""
    if isinstance(name, str) and _NAMED.search(name):
        return HIDDEN
    if isinstance(value, str):
        return text(value)
    if isinstance(value, BaseException):
        return text(repr(value))
    if isinstance(value, Mapping):
        return {key: named(key, inner) for key, inner in value.items()}
    return [named(None, inner) for inner in value] if isinstance(value, (list, tuple, set, frozenset)) else value
