"""TAR segments: POSIX ustar members (which every pax reader takes), without the trailer that would end the archive.

Segments one after the other and `TRAILER` make one archive. A trailer in the middle would make readers stop there without a word.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from core.errors import InvalidInput
from core.segments import Pointer
from core.segments.file import SegmentFile

BLOCK: Final = 512
TRAILER: Final = bytes(2 * BLOCK)
"""What ends an archive."""
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_LIMIT: Final = 8**11
"""Size and mtime are 11 octal digits."""
_HEADER: Final = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s12x")


class Member(NamedTuple):
    name: str
    mtime: int
    payload: Pointer


class TarSegment(SegmentFile):
    """A segment of images.tar that grows by whole members."""

    def add(self, name: str, data: bytes, mtime: int) -> Pointer:
        """Appends a member.

        Args:
            name: `<sha256>.<ext>`; letters, digits, `.`, `_` and `-`, at most 100, not beginning with a dot.
            data: the payload.
            mtime: seconds since 1970; outside what TAR can say it is brought to the nearest that it can.

        Returns:
            Where the payload is in this segment.

        Raises:
            InvalidInput: the name ("bad_name"), or 8 GiB and more ("too_large").
            Unavailable: see `append`.
        """
        start = self.append((_header(name, len(data), min(max(mtime, 0), _LIMIT - 1)), data, bytes(-len(data) % BLOCK)))
        return Pointer(start + BLOCK, len(data))


def members(stream: BinaryIO) -> Iterator[Member]:
    """The members of a segment or an archive of ours, up to the first that is not whole.

    Args:
        stream: seekable.
    """
    size = stream.seek(0, os.SEEK_END)
    start = 0
    while (member := _member_at(stream, start)) and (start := _round_up(member.payload.end)) <= size:
        yield member


def cut(path: Path, length: int) -> int:
    """Truncates a segment to its last whole member that ends within `length` bytes (the end of the last payload that is known).

    Returns:
        The size of the file now; 0 for a file that is not there.
    """
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        ends = [_round_up(member.payload.end) for member in members(file)]
        size = max((end for end in ends if end <= _round_up(length)), default=0)
        file.truncate(size)
        os.fsync(file.fileno())
    return size


def _header(name: str, size: int, mtime: int) -> bytes:
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"not a name for a member: {name[:100]!r}", code="bad_name")
    if size >= _LIMIT:
        raise InvalidInput(f"{size} bytes are more than a member may have", code="too_large")
    return _pack(name.encode(), size, mtime, b" " * 8, checked=False)


def _pack(name: bytes, size: int, mtime: int, checksum: bytes, *, checked: bool) -> bytes:
    zero = b"0000000\0"
    header = _HEADER.pack(
        name,
        b"0000644\0",
        zero,
        zero,
        b"%011o\0" % size,
        b"%011o\0" % mtime,
        checksum,
        b"0",
        b"",
        b"ustar\0",
        b"00",
        b"",
        b"",
        zero,
        zero,
        b"",
    )
    return header if checked else _pack(name, size, mtime, b"%06o\0 " % sum(header), checked=True)


def _member_at(stream: BinaryIO, start: int) -> Member | None:
    stream.seek(start)
    header = stream.read(BLOCK)
    if len(header) < BLOCK or sum(header[:148]) + sum(header[156:]) + 8 * 32 != _octal(header[148:156]):
        return None
    size, mtime = _octal(header[124:136]), _octal(header[136:148])
    if size < 0 or mtime < 0:
        return None
    return Member(header[:100].rstrip(b"\0").decode("ascii", "replace"), mtime, Pointer(start + BLOCK, size))


def _octal(field: bytes) -> int:
    digits = field.rstrip(b"\0 ")
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else -1


def _round_up(size: int) -> int:
    return size + -size % BLOCK
