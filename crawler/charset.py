"""Which encoding a page is in, as a browser decides it (WHATWG Encoding and HTML standards, without the guessing by language)."""

from __future__ import annotations

import codecs
import re
from typing import Final

_PRESCAN: Final = 4096
_LABEL: Final = re.compile(r"charset\s*=\s*[\"']?\s*([\w:.\-]{1,40})", re.IGNORECASE | re.ASCII)
_META: Final = re.compile(rb"<meta\b([^>]{0,1000})", re.IGNORECASE)
_BOMS: Final = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_BROWSERS: Final = {
    # What a label means on the web, where Python's codec of that name would be narrower.
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "utf-16": "utf-16-le",
}
_NEVER: Final = frozenset(
    {"utf-7", "utf-32", "utf-32-le", "utf-32-be", "punycode", "idna", "unicode_escape", "raw_unicode_escape", "undefined"}
)


def decode(body: bytes, content_type: str) -> tuple[str, str]:
    """(text, Python's name of the encoding). Never raises; what cannot be decoded becomes U+FFFD.

    Args:
        content_type: the whole Content-Type header, with parameters.
    """
    for bom, name in _BOMS:
        if body.startswith(bom):
            return body[len(bom) :].decode(name, "replace"), name
    name = _from_label(content_type) or _from_meta(body) or _guess(body)
    return body.decode(name, "replace"), name


def _from_label(text: str) -> str | None:
    found = _LABEL.search(text[:1000])
    return _codec(found[1]) if found else None


def _codec(label: str) -> str | None:
    label = {"x-sjis": "shift_jis", "windows-31j": "cp932", "x-gbk": "gbk", "unicode": "utf-16", "x-x-big5": "big5"}.get(
        label.lower(), label
    )
    try:
        found = codecs.lookup(label)
    except (LookupError, ValueError):
        return None
    if not found._is_text_encoding or found.name in _NEVER:
        return None
    return _BROWSERS.get(found.name, found.name)


def _from_meta(body: bytes) -> str | None:
    for found in _META.finditer(body, 0, _PRESCAN):
        name = _from_label(found[1].decode("latin-1"))
        if name is not None:
            # It was readable as ASCII, so it cannot be UTF-16 whatever it says.
            return "utf-8" if name.startswith("utf-16") else name
    return None


def _guess(body: bytes) -> str:
    start = body[:1024]
    if len(start) >= 4 and start.count(0) * 4 >= len(start):
        return "utf-16-le" if start[1::2].count(0) > start[::2].count(0) else "utf-16-be"
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        # A body that was cut may end within a character.
        return "utf-8" if error.reason == "unexpected end of data" else "cp1252"
    return "utf-8"
