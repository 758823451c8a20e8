"""Walks the headers of picture files: the size, and the blocks that hold metadata.

Every walk is over at most a fixed number of blocks, each of which costs a fixed time; blocks are cut at 64 KiB.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

LIMIT: Final = 1 << 16
"""Bytes of a metadata block that are looked at."""
_BLOCKS: Final = 1000
_Order = Literal["little", "big"]

_EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_PHOTOSHOP: Final = b"Photoshop 3.0\0"
_PNG_XMP: Final = b"XML:com.adobe.xmp"
_PNG_KEYWORDS: Final = {b"Author", b"Copyright", _PNG_XMP}
_SOF: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_NO_LENGTH: Final = frozenset({0x01, 0xFF, *range(0xD0, 0xD8)})
_SOS, _EOI = 0xDA, 0xD9
TIFF_WIDTH, TIFF_HEIGHT, TIFF_ARTIST, TIFF_XMP, TIFF_COPYRIGHT, TIFF_IPTC = 256, 257, 315, 700, 33432, 33723
_TIFF_TAGS: Final = {TIFF_WIDTH, TIFF_HEIGHT, TIFF_ARTIST, TIFF_XMP, TIFF_COPYRIGHT, TIFF_IPTC}
_TIFF_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}
"""Bytes of a value by its type: BYTE, ASCII, SHORT, LONG, UNDEFINED."""


@dataclass(slots=True)
class Header:
    """What a walk has found so far."""

    width: int = 0
    height: int = 0
    tiff: dict[int, bytes] = field(default_factory=dict)
    """Values of the first IFD, of EXIF or TIFF, by tag."""
    iptc: bytes = b""
    """IIM data sets."""
    xmp: bytes = b""
    author: str = ""
    copyright: str = ""
    """Of a PNG."""


def read_header(content_type: str | None, data: bytes) -> Header:
    """What can be read; where the bytes are cut or wrong, what stood before."""
    header = Header()
    reader = _READERS.get(content_type or "")
    if reader is not None:
        with suppress(struct.error, IndexError):
            reader(data, header)
    return header


def _jpeg(data: bytes, header: Header) -> None:
    at = 2
    for _ in range(_BLOCKS):
        at = data.find(b"\xff", at)
        marker = data[at + 1]
        if at < 0 or marker in (_SOS, _EOI):
            return
        if marker in _NO_LENGTH:
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        _jpeg_segment(marker, data[at + 4 : at + 2 + length], header)
        at += 2 + length


def _jpeg_segment(marker: int, segment: bytes, header: Header) -> None:
    if marker in _SOF and not header.width:
        header.height, header.width = struct.unpack_from(">HH", segment, 1)
    elif marker == 0xE1 and segment.startswith(_EXIF) and not header.tiff:
        header.tiff = tiff_values(segment[len(_EXIF) :])
    elif marker == 0xE1 and segment.startswith(_XMP) and not header.xmp:
        header.xmp = segment[len(_XMP) :]
    elif marker == 0xED and segment.startswith(_PHOTOSHOP) and not header.iptc:
        header.iptc = _iptc_resource(segment[len(_PHOTOSHOP) :])


def _iptc_resource(data: bytes) -> bytes:
    """The IIM data sets among Photoshop's image resources."""
    at = 0
    for _ in range(_BLOCKS):
        if data[at : at + 4] != b"8BIM" or at + 12 > len(data):
            break
        name = data[at + 6] + 1
        start = at + 6 + name + name % 2 + 4
        size = int.from_bytes(data[start - 4 : start], "big")
        if data[at + 4 : at + 6] == b"\x04\x04":
            return data[start : start + size]
        at = start + size + size % 2
    return b""


def _png(data: bytes, header: Header) -> None:
    at = 8
    for _ in range(_BLOCKS):
        length, kind = struct.unpack_from(">I4s", data, at)
        _png_chunk(kind, data[at + 8 : at + 8 + min(length, LIMIT)], header)
        at += 12 + length


def _png_chunk(kind: bytes, chunk: bytes, header: Header) -> None:
    if kind == b"IHDR" and not header.width:
        header.width, header.height = struct.unpack_from(">II", chunk)
    elif kind == b"eXIf" and not header.tiff:
        header.tiff = tiff_values(chunk)
    elif kind == b"tEXt":
        keyword, _, text = chunk.partition(b"\0")
        _png_text(keyword, text.decode("latin-1"), header)
    elif kind == b"iTXt":
        _png_international_text(chunk, header)


def _png_international_text(chunk: bytes, header: Header) -> None:
    """Keyword, NUL, whether compressed, how, language, NUL, keyword in that language, NUL, text."""
    keyword, _, rest = chunk.partition(b"\0")
    if keyword not in _PNG_KEYWORDS:
        return
    text = rest[2:].split(b"\0", 2)[-1]
    text = _inflate(text) if rest[:1] == b"\1" else text
    if keyword == _PNG_XMP:
        header.xmp = header.xmp or text
    else:
        _png_text(keyword, text.decode("utf-8", "replace"), header)


def _png_text(keyword: bytes, text: str, header: Header) -> None:
    if keyword == b"Author":
        header.author = header.author or text
    elif keyword == b"Copyright":
        header.copyright = header.copyright or text


def _inflate(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, LIMIT)
    except zlib.error:
        return b""


def _gif(data: bytes, header: Header) -> None:
    header.width, header.height = struct.unpack_from("<HH", data, 6)


def _webp(data: bytes, header: Header) -> None:
    at = 12
    for _ in range(_BLOCKS):
        kind, length = struct.unpack_from("<4sI", data, at)
        _webp_chunk(kind, data[at + 8 : at + 8 + min(length, LIMIT)], header)
        at += 8 + length + length % 2


def _webp_chunk(kind: bytes, chunk: bytes, header: Header) -> None:
    if kind == b"EXIF" and not header.tiff:
        header.tiff = tiff_values(chunk.removeprefix(_EXIF))
    elif kind == b"XMP " and not header.xmp:
        header.xmp = chunk
    elif not header.width:
        header.width, header.height = _webp_size(kind, chunk)


def _webp_size(kind: bytes, chunk: bytes) -> tuple[int, int]:
    """The canvas (VP8X), or the picture (VP8L lossless, RFC 9649; VP8 lossy, RFC 6386)."""
    if kind == b"VP8X" and len(chunk) >= 10:
        return int.from_bytes(chunk[4:7], "little") + 1, int.from_bytes(chunk[7:10], "little") + 1
    if kind == b"VP8L" and len(chunk) >= 5 and chunk[0] == 0x2F:
        bits = int.from_bytes(chunk[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and chunk[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", chunk, 6)
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def _bmp(data: bytes, header: Header) -> None:
    layout = "<HH" if data[14] == 12 else "<ii"
    width, height = struct.unpack_from(layout, data, 18)
    header.width, header.height = abs(width), abs(height)  # a negative height means top-down


def _tiff(data: bytes, header: Header) -> None:
    order = _byte_order(data)
    header.tiff = tiff_values(data)
    header.width, header.height = (int.from_bytes(header.tiff.get(tag, b"")[:4], order) for tag in (TIFF_WIDTH, TIFF_HEIGHT))
    header.xmp, header.iptc = header.tiff.get(TIFF_XMP, b""), header.tiff.get(TIFF_IPTC, b"")


def _byte_order(data: bytes) -> _Order:
    return "little" if data[:2] == b"II" else "big"


def tiff_values(data: bytes) -> dict[int, bytes]:
    """Values of the first IFD of a TIFF or an EXIF block by tag, as far as this package has a use for them."""
    return dict(_tiff_entries(data)) if data[:4] in (b"II*\0", b"MM\0*") else {}


def _tiff_entries(data: bytes) -> Iterator[tuple[int, bytes]]:
    order = "<" if data[:2] == b"II" else ">"
    with suppress(struct.error):
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        for entry in range(at + 2, at + 2 + 12 * min(count, _BLOCKS), 12):
            tag, kind, values = struct.unpack_from(order + "HHI", data, entry)
            if tag not in _TIFF_TAGS:
                continue
            size = _TIFF_SIZES.get(kind, 0) * values
            start = entry + 8 if size <= 4 else struct.unpack_from(order + "I", data, entry + 8)[0]
            yield tag, data[start : start + min(size, LIMIT)]


def _heif(data: bytes, header: Header) -> None:
    """AVIF and HEIC: the largest `ispe` property (a picture of tiles has one for the tiles, too), without a walk through the boxes."""
    at = 0
    head = data[:LIMIT]
    for _ in range(_BLOCKS):
        at = head.find(b"\0\0\0\x14ispe\0\0\0\0", at) + 12
        if at < 12:
            return
        width, height = struct.unpack_from(">II", head, at)
        if width * height > header.width * header.height:
            header.width, header.height = width, height


_READERS: Final[dict[str, Callable[[bytes, Header], None]]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/gif": _gif,
    "image/webp": _webp,
    "image/bmp": _bmp,
    "image/tiff": _tiff,
    "image/avif": _heif,
    "image/heic": _heif,
    "image/heif": _heif,
}
