"""WebP files: lossless ones stay so, lossy ones are written at about the quality that they had; alpha, profile, EXIF and XMP stay.

A lossy file does not say its quality, but the indices of its quantisers (RFC 6386, section 9.6), from which libwebp's scale follows. The
finest of them counts, as what is lossy loses again: files become 3 % smaller to 18 % larger.
"""

from __future__ import annotations

from io import BytesIO
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from matcher.pixels import F32
from matcher.upright import opened
from matcher.watermark.errors import PictureInvalid
from matcher.watermark.samples import add_beside_alpha, add_to

_KINDS: Final = ["WEBP"]
_SAID: Final = ("icc_profile", "exif", "xmp")
_LARGEST: Final = 127
"""Index of the coarsest quantiser."""


def mark_webp(data: bytes, change: F32) -> bytes:
    """The file with the change, which is given on the canonical grid as the picture lies."""
    with opened(data, _KINDS) as image:
        image.load()
        said = {name: image.info[name] for name in _SAID if name in image.info}
        samples = np.array(image)
    (add_beside_alpha if samples.shape[2] == 4 else add_to)(samples, change)
    lossy = [chunk.body for chunk in chunks(data) if chunk.kind == b"VP8 "]
    file = BytesIO()
    how = {"quality": quality(quantiser(lossy[0]))} if lossy else {"lossless": True}
    Image.fromarray(samples).save(file, "WEBP", exact=True, **how, **said)
    return file.getvalue()


class Chunk(NamedTuple):
    kind: bytes
    body: bytes


def chunks(data: bytes) -> list[Chunk]:
    """All chunks of a WebP, in order."""
    found, at = [], 12
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        found.append(Chunk(data[at : at + 4], data[at + 8 : end]))
        at = end + end % 2
    return found


def quality(index: int) -> int:
    """What libwebp was told (0 to 100) that it took this quantiser."""
    linear = (1 - index / _LARGEST) ** 3
    return round(100 * (1.5 * linear if linear < 0.5 else (linear + 1) / 2))


def quantiser(frame: bytes) -> int:
    """The index of the finest quantiser in a key frame of VP8, 0 to 127. Raises PictureInvalid."""
    bits = _Bits(frame[10:])
    bits.read(2)
    by_segment = _segments(bits) if bits.read(1) else []
    bits.read(1 + 6 + 3)
    if bits.read(1) and bits.read(1):
        for _ in range(8):
            bits.read_signed(6)
    bits.read(2)
    index = bits.read(7)
    return min(by_segment) if by_segment else index


def _segments(bits: _Bits) -> list[int]:
    """The quantisers of the four segments, where they have their own."""
    mapped, given = bits.read(1), bits.read(1)
    own: list[int] = []
    if given:
        absolute = bits.read(1)
        values = [bits.read_signed(7) for _ in range(4)]
        for _ in range(4):
            bits.read_signed(6)
        own = values if absolute else []
    if mapped:
        for _ in range(3):
            if bits.read(1):
                bits.read(8)
    return own


class _Bits:
    """The boolean decoder of RFC 6386, section 7, where both values are as likely."""

    def __init__(self, data: bytes) -> None:
        self._rest = iter(data)
        self._value = (self._next() << 8) | self._next()
        self._range, self._count = 255, 0

    def read(self, count: int) -> int:
        """An unsigned number of so many bits."""
        number = 0
        for _ in range(count):
            number = number << 1 | self._bit()
        return number

    def read_signed(self, count: int) -> int:
        """A number that is 0 unless a bit says that it follows, with its sign."""
        if not self.read(1):
            return 0
        number = self.read(count)
        return -number if self.read(1) else number

    def _bit(self) -> int:
        split = 1 + ((self._range - 1) * 128 >> 8)
        bit = self._value >= split << 8
        self._range, self._value = (self._range - split, self._value - (split << 8)) if bit else (split, self._value)
        while self._range < 128:
            self._range, self._value, self._count = self._range << 1, self._value << 1, self._count + 1
            if self._count == 8:
                self._value, self._count = self._value | self._next(), 0
        return int(bit)

    def _next(self) -> int:
        byte = next(self._rest, None)
        if byte is None:
            raise PictureInvalid("the picture is damaged: its first frame is cut")
        return byte
