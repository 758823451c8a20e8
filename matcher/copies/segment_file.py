"""A segment as bytes: a header of 64, then offsets, codes and places, little-endian as in memory: a file is mapped, not read."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from matcher.copies.codes import Projections
from matcher.copies.segment import Segment
from matcher.copies.votes import PLACE

_HEADER: Final = struct.Struct("<4sIIIQI")
_ROOM: Final = 64
_MAGIC: Final = b"FGS1"


class SegmentInvalid(ValueError):
    """The bytes are no segment that this program reads: of another version, made by other projections, cut or damaged."""


def to_bytes(segment: Segment) -> bytes:
    return b"".join(parts(segment))


def parts(segment: Segment) -> Iterator[bytes | memoryview]:
    """The segment's bytes in pieces, without a copy of all of them."""
    arrays = (_even(segment), segment.codes, segment.places)
    body = [array.view(np.uint8).data for array in arrays if len(array)]
    crc = 0
    for part in body:
        crc = zlib.crc32(part, crc)
    fields = (_MAGIC, Projections.shipped().identity, segment.pictures, segment.bits, len(segment), crc)
    header = _HEADER.pack(*fields)
    yield header + zlib.crc32(header).to_bytes(4, "little") + bytes(_ROOM - _HEADER.size - 4)
    yield from body


def from_bytes(data: bytes | memoryview | mmap.mmap, *, verify: bool = True) -> Segment:
    """The segment in these bytes, which it goes on using. Without `verify` only lengths and header are looked at. Raises SegmentInvalid."""
    pictures, bits, entries, crc = _header(bytes(data[:_ROOM]))
    cells = (1 << bits) + 2
    if len(data) != _ROOM + 4 * cells + 16 * entries:
        raise SegmentInvalid(f"a segment of {entries} entries has not {len(data)} bytes")
    if verify and zlib.crc32(memoryview(data)[_ROOM:]) != crc:
        raise SegmentInvalid("the segment's checksum does not fit")
    offsets = np.frombuffer(data, "<u4", cells, _ROOM)[:-1]
    codes = np.frombuffer(data, "<u8", entries, _ROOM + 4 * cells)
    places = np.frombuffer(data, PLACE, entries, _ROOM + 4 * cells + 8 * entries)
    return Segment(pictures, codes, places, bits, offsets)


def opened(path: Path, *, verify: bool = True) -> Segment:
    """The segment in a file, memory-mapped. Raises OSError, SegmentInvalid."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise SegmentInvalid("the file is empty")
        return from_bytes(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), verify=verify)


def _even(segment: Segment) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    """One more offset, so that what follows lies at a multiple of 8."""
    return np.append(segment.offsets, np.uint32(0))


def _header(data: bytes) -> tuple[int, int, int, int]:
    """(pictures, bits, entries, checksum)."""
    if len(data) < _ROOM or data[:4] != _MAGIC:
        raise SegmentInvalid("not a segment, or one of another version")
    header, check = data[: _HEADER.size], data[_HEADER.size : _HEADER.size + 4]
    if zlib.crc32(header).to_bytes(4, "little") != check:
        raise SegmentInvalid("the segment's header is damaged")
    _, projections, pictures, bits, entries, crc = _HEADER.unpack(header)
    if projections != Projections.shipped().identity:
        raise SegmentInvalid("the segment's codes were made by other projections")
    return pictures, bits, entries, crc
