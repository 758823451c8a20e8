"""The credit of a picture from its metadata: IPTC (IIM 4.2), XMP, EXIF, PNG texts.

XMP is looked through as text, not parsed as XML: there is nothing in it that could expand.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Final

from core.imageinfo.header import LIMIT, TIFF_ARTIST, TIFF_COPYRIGHT, Header

_TEXTS: Final = 30
_TEXT_LIMIT: Final = 500
_LINE_LIMIT: Final = 2000
_DATA_SETS: Final = 500
_CREDIT, _CREATOR, _RIGHTS = range(3)
"""Kinds of texts, in the order in which they stand in a credit line."""

_IPTC: Final = {110: _CREDIT, 80: _CREATOR, 116: _RIGHTS}
_EXIF: Final = {TIFF_ARTIST: _CREATOR, TIFF_COPYRIGHT: _RIGHTS}
_XMP: Final = {"photoshop:Credit": _CREDIT, "dc:creator": _CREATOR, "dc:rights": _RIGHTS}
_XMP_TEXT: Final = re.compile(r">([^<>]+)<")
_SPACE: Final = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ufffe\uffff]+")


def credit_line(header: Header) -> str | None:
    """The different texts about credit, creator and rights, joined by "; "; None without any."""
    png = ((_CREATOR, header.author), (_RIGHTS, header.copyright))
    found = sorted((*_iptc(header.iptc), *_xmp(header.xmp), *_exif(header.tiff), *png), key=lambda text: text[0])
    texts = [clean for _, text in found if (clean := _clean(text))][:_TEXTS]
    lines = [text for text in dict.fromkeys(texts) if not any(text in other and text != other for other in texts)]
    return "; ".join(lines)[:_LINE_LIMIT] or None


def _iptc(data: bytes) -> Iterator[tuple[int, str]]:
    at = 0
    for _ in range(_DATA_SETS):
        if data[at : at + 1] != b"\x1c" or at + 5 > len(data):
            return
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if data[at + 1] == 2 and data[at + 2] in _IPTC:
            yield _IPTC[data[at + 2]], _decode(data[at + 5 : at + 5 + length])
        at += 5 + length


def _exif(tiff: dict[int, bytes]) -> Iterator[tuple[int, str]]:
    """Copyright may be two texts: photographer, NUL, editor."""
    for tag, kind in _EXIF.items():
        for part in tiff.get(tag, b"").split(b"\0", 2)[:2]:
            yield kind, _decode(part)


def _xmp(data: bytes) -> Iterator[tuple[int, str]]:
    packet = data[:LIMIT].decode("utf-8", "replace")
    for name, kind in _XMP.items():
        for text in (*_xmp_attribute(packet, name), *_xmp_element(packet, name)):
            yield kind, html.unescape(text[: 4 * _TEXT_LIMIT])


def _xmp_attribute(packet: str, name: str) -> list[str]:
    _, found, rest = packet.partition(f"{name}=")
    return [rest[1:].partition(rest[:1])[0]] if found and rest[:1] in ("'", '"') else []


def _xmp_element(packet: str, name: str) -> list[str]:
    """The texts of the first such element, whether it holds them itself or in a list."""
    _, _, rest = packet.partition(f"<{name}")
    inner, closed, _ = rest.partition(f"</{name}>")
    return _XMP_TEXT.findall(f"{inner}<")[:10] if closed else []


def _decode(text: bytes) -> str:
    """UTF-8, as nearly all writers do today whatever they declare; else the Western code page of the older ones."""
    text = text[: 4 * _TEXT_LIMIT]
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("cp1252", "replace")


def _clean(text: str) -> str:
    return _SPACE.sub(" ", text[: 4 * _TEXT_LIMIT]).strip()[:_TEXT_LIMIT]
