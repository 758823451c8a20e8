"""TIFF files (TIFF 6.0): the samples are changed where they lie, and everything else in the file stays where and what it is.

8 and 16 bit, gray, RGB and CMYK, strips or tiles, chunky or planar, not compressed or by LZW, Deflate or PackBits. What is compressed is
compressed the same way again; where it does not fit into its place any more, it goes to the end of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import Final, Literal, NamedTuple

import numpy as np
from PIL import Image

from matcher.pixels import F32
from matcher.upright import opened
from matcher.watermark.errors import PictureInvalid
from matcher.watermark.samples import Samples, add_to, add_to_inks

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL = 256, 257, 258, 259, 262, 266
_STRIPS, _CHANNELS, _ROWS, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _EXTRA, _FORMAT = 322, 323, 324, 325, 338, 339
_NONE: Final = 1
_CODECS: Final = {5: "tiff_lzw", 8: "tiff_adobe_deflate", 32946: "tiff_deflate", 32773: "packbits"}
_WHITE_IS_ZERO, _CMYK = 0, 5
_COLOURS: Final = {_WHITE_IS_ZERO: 1, 1: 1, 2: 3, _CMYK: 4}
"""Channels by photometric interpretation."""
_TYPES: Final = {1: "B", 3: "H", 4: "I"}
_SIZES: Final = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of a value by its type; those of others are one."""
_UNASSOCIATED: Final = 2


def mark_tiff(data: bytes, change: F32) -> bytes:
    """The file with the change, which is given on the canonical grid as the picture lies."""
    fields = Fields(bytearray(data))
    layout = _layout(fields)
    pieces = list(_pieces(layout))
    places = [_place(fields, piece, layout) for piece in pieces]
    _check(places, fields)
    samples = np.zeros((layout.height, layout.width, layout.channels), np.uint8 if layout.bits == 8 else np.uint16)
    for piece in pieces:
        piece.inside(samples)[:] = _read(fields, piece, layout)[: piece.height, : piece.width]
    _add(samples, change, layout)
    stored = (_stored(_padded(piece.inside(samples), piece), fields, layout) for piece in pieces)
    _write(fields, stored, layout, places)
    del samples, stored  # a third of the memory that a large picture takes
    return bytes(fields.data)


class Fields:
    """The fields of the first directory of a TIFF, read and changed in place. Raises struct.error and IndexError for damage."""

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.order: Literal["<", ">"] = "<" if data[:2] == b"II" else ">"
        version, start = struct.unpack_from(self.order + "HI", data, 2)
        if version != 42:
            raise _refused("BigTIFF")
        (count,) = struct.unpack_from(self.order + "H", data, start)
        entries = ((*struct.unpack_from(self.order + "HHI", data, at), at + 8) for at in range(start + 2, start + 2 + 12 * count, 12))
        self._entries = {tag: (kind, number, at) for tag, kind, number, at in entries}
        self._table = (start, start + 2 + 12 * count + 4)

    def values(self, tag: int) -> tuple[int, ...]:
        """Whole numbers; KeyError where there are none."""
        form, at = self._where(tag)
        return struct.unpack_from(form, self.data, at)

    def one(self, tag: int, default: int | None = None, *, at: int = 0) -> int:
        """The first number, or another."""
        if tag not in self._entries and default is not None:
            return default
        form, start = self._where(tag)
        single = self.order + form[-1]
        (value,) = struct.unpack_from(single, self.data, start + at * struct.calcsize(single))
        return int(value)

    def put(self, tag: int, at: int, value: int) -> None:
        """Changes one of its numbers. A place too narrow for it is a struct.error."""
        form, start = self._where(tag)
        single = self.order + form[-1]
        struct.pack_into(single, self.data, start + at * struct.calcsize(single), value)

    def places(self) -> list[tuple[int, int]]:
        """(start, end) of the header, the directory, and of each value outside of it."""
        found = [(0, 8), self._table]
        for kind, number, at in self._entries.values():
            if (length := _SIZES.get(kind, 1) * number) > 4:
                (start,) = struct.unpack_from(self.order + "I", self.data, at)
                found.append((start, start + length))
        return found

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def _where(self, tag: int) -> tuple[str, int]:
        kind, number, at = self._entries[tag]
        form = f"{self.order}{number}{_TYPES[kind]}"
        if struct.calcsize(form) > 4:
            (at,) = struct.unpack_from(self.order + "I", self.data, at)
        return form, at


@dataclass(frozen=True, slots=True)
class _Layout:
    width: int
    height: int
    bits: int
    channels: int
    photometric: int
    extra: tuple[int, ...]
    compression: int
    predicted: bool
    planar: bool
    across: int
    """Pixels of a row of a strip or tile."""
    down: int
    tiled: bool


class _Piece(NamedTuple):
    """A strip or tile: its number, where in the picture it begins, what of it is inside, its rows, and which channels it has."""

    number: int
    left: int
    top: int
    width: int
    height: int
    across: int
    rows: int
    channels: slice

    def inside(self, samples: Samples) -> Samples:
        return samples[self.top : self.top + self.height, self.left : self.left + self.width, self.channels]


def _layout(fields: Fields) -> _Layout:
    """Raises PictureInvalid for what is not handled."""
    width, height = fields.one(_WIDTH), fields.one(_HEIGHT)
    photometric, compression, channels = fields.one(_PHOTOMETRIC), fields.one(_COMPRESSION, _NONE), fields.one(_CHANNELS, 1)
    bits = set(fields.values(_BITS)) if _BITS in fields else {1}
    if photometric not in _COLOURS or channels < _COLOURS[photometric]:
        raise _refused("colours of another kind than gray, RGB and CMYK")
    if compression != _NONE and compression not in _CODECS:
        raise _refused(f"compression {compression}")
    if bits not in ({8}, {16}) or (_FORMAT in fields and set(fields.values(_FORMAT)) != {1}) or fields.one(_FILL, 1) != 1:
        raise _refused("samples that are not whole numbers of 8 or 16 bit")
    extra = fields.values(_EXTRA) if _EXTRA in fields else ()
    if 1 in extra:
        raise _refused("colours that are multiplied by alpha")
    tiled = _TILES in fields
    return _Layout(
        width,
        height,
        bits.pop(),
        channels,
        photometric,
        extra,
        compression,
        fields.one(_PREDICTOR, 1) == 2,
        fields.one(_PLANAR, 1) == 2,
        fields.one(_TILE_WIDTH) if tiled else width,
        fields.one(_TILE_HEIGHT) if tiled else min(fields.one(_ROWS, height), height),
        tiled,
    )


def _refused(what: str) -> PictureInvalid:
    return PictureInvalid(f"TIFF files with {what} are not marked", code="unsupported_media")


def _pieces(layout: _Layout) -> Iterator[_Piece]:
    planes = [slice(c, c + 1) for c in range(layout.channels)] if layout.planar else [slice(0, layout.channels)]
    number = 0
    for channels in planes:
        for top in range(0, layout.height, layout.down):
            for left in range(0, layout.width, layout.across):
                width, height = min(layout.across, layout.width - left), min(layout.down, layout.height - top)
                yield _Piece(number, left, top, width, height, layout.across, layout.down if layout.tiled else height, channels)
                number += 1


def _read(fields: Fields, piece: _Piece, layout: _Layout) -> Samples:
    """The samples of a strip or tile, rows x columns x channels."""
    channels = piece.channels.stop - piece.channels.start
    start, length = _place(fields, piece, layout)
    packed = bytes(fields.data[start : start + length])
    plain = packed if layout.compression == _NONE else _unpacked(packed, layout, piece)
    stored = np.frombuffer(plain, np.dtype(np.uint8 if layout.bits == 8 else fields.order + "u2"), piece.rows * piece.across * channels)
    samples = stored.astype(stored.dtype.newbyteorder("=")).reshape(piece.rows, piece.across, channels)
    return np.cumsum(samples, axis=1, dtype=samples.dtype) if layout.predicted else samples


def _padded(samples: Samples, piece: _Piece) -> Samples:
    """A tile is whole where the picture ends inside of it, too."""
    right, below = piece.across - samples.shape[1], piece.rows - samples.shape[0]
    return np.pad(samples, ((0, below), (0, right), (0, 0)), mode="edge")


def _stored(samples: Samples, fields: Fields, layout: _Layout) -> bytes:
    """The bytes of a strip or tile."""
    stored = np.diff(samples, axis=1, prepend=samples.dtype.type(0)) if layout.predicted else samples
    plain = stored.astype(stored.dtype.newbyteorder(fields.order), copy=False).tobytes()
    return plain if layout.compression == _NONE else _packed(plain, len(samples), layout.compression)


def _place(fields: Fields, piece: _Piece, layout: _Layout) -> tuple[int, int]:
    """Where its bytes begin, and how many they are."""
    starts, lengths = _where(layout)
    start, length = fields.one(starts, at=piece.number), fields.one(lengths, at=piece.number)
    return start, min(length, max(0, len(fields.data) - start))


def _where(layout: _Layout) -> tuple[int, int]:
    return (_TILES, _TILE_BYTES) if layout.tiled else (_STRIPS, _STRIP_BYTES)


def _check(places: list[tuple[int, int]], fields: Fields) -> None:
    """Raises PictureInvalid where samples would be written over what is not theirs."""
    strips = _joined([place for place in places if place[1]])
    others = [place for place in fields.places() if place[0] < place[1]]
    for (_, end, one), (start, _, other) in pairwise(sorted([*((*p, False) for p in strips), *((*p, True) for p in others)])):
        if start < end and one != other:
            raise PictureInvalid("the picture is damaged: samples lie where something else does")


def _write(fields: Fields, stored: Iterable[bytes], layout: _Layout, places: list[tuple[int, int]]) -> None:
    """Puts strips or tiles into the places that they had together; what does not fit goes to the end. Nothing of the original is left."""
    for start, length in places:
        fields.data[start : start + length] = bytes(length)
    free = iter(_joined(places))
    at, end = next(free)
    for number, piece in enumerate(stored):
        while at + len(piece) > end:
            at, end = next(free, (len(fields.data) + len(fields.data) % 2, 1 << 32))
        fields.data[len(fields.data) :] = bytes(max(0, at - len(fields.data)))
        fields.data[at : at + len(piece)] = piece
        fields.put(_where(layout)[0], number, at)
        fields.put(_where(layout)[1], number, len(piece))
        at += len(piece)


def _joined(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(start, end) of what lies without a gap."""
    joined: list[tuple[int, int]] = []
    for start, length in sorted(places):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], start + length))
        else:
            joined.append((start, start + length))
    return joined


def _unpacked(packed: bytes, layout: _Layout, piece: _Piece) -> bytes:
    """By libtiff: the strip as the only one of a gray picture whose rows are as many bytes."""
    row = piece.across * (piece.channels.stop - piece.channels.start) * layout.bits // 8
    said = ((_WIDTH, row), (_HEIGHT, piece.rows), (_BITS, 8), (_COMPRESSION, layout.compression), (_PHOTOMETRIC, 1))
    placed = ((_STRIPS, 8), (_CHANNELS, 1), (_ROWS, piece.rows), (_STRIP_BYTES, len(packed)))
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in (*said, *placed))
    even = packed + bytes(len(packed) % 2)
    directory = struct.pack("<H", len(said) + len(placed)) + fields + bytes(4)
    with opened(b"II*\0" + struct.pack("<I", 8 + len(even)) + even + directory, ["TIFF"]) as image:
        return image.tobytes()


def _packed(plain: bytes, rows: int, compression: int) -> bytes:
    """By libtiff, likewise."""
    file = BytesIO()
    image = Image.frombytes("L", (len(plain) // rows, rows), plain)
    image.save(file, "TIFF", compression=_CODECS[compression], strip_size=len(plain))
    fields = Fields(bytearray(file.getbuffer()))
    start, length = fields.one(_STRIPS), fields.one(_STRIP_BYTES)
    return bytes(fields.data[start : start + length])


def _add(samples: Samples, change: F32, layout: _Layout) -> None:
    """To the colours alone; what is wholly transparent stays as it is."""
    colours = np.ascontiguousarray(samples[..., : _COLOURS[layout.photometric]])
    if layout.photometric == _CMYK:
        add_to_inks(colours, change)
    else:
        add_to(colours[..., 0] if colours.shape[2] == 1 else colours, -change if layout.photometric == _WHITE_IS_ZERO else change)
    seen = samples[..., -1:] > 0 if _UNASSOCIATED in layout.extra else np.True_
    np.copyto(samples[..., : colours.shape[2]], colours, where=seen)
