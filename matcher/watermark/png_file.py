"""PNG files: 8 and 16 bit, gray and colour, alpha and what is transparent kept bit for bit, and each chunk that says something else.

Palettes and transparent colours cannot hold the change: they become true colour with alpha. Gray with alpha of 16 bit becomes colour.
"""

from __future__ import annotations

import zlib
from io import BytesIO
from typing import Final, NamedTuple

import cv2
import numpy as np
from PIL import Image

from matcher.pixels import F32
from matcher.upright import opened
from matcher.watermark.errors import PictureInvalid
from matcher.watermark.samples import Samples, add_beside_alpha, add_to

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_KINDS: Final = ["PNG"]
_LEVEL: Final = 6
_ENCODING: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"hIST"})
"""Chunks that say how the pixels are written: those of the encoder count."""
_OF_COLOURS: Final = frozenset({b"bKGD", b"sBIT"})
"""Chunks whose form goes by bit depth and kind of colour."""


def mark_png(data: bytes, change: F32) -> bytes:
    """The file with the change, which is given on the canonical grid as the picture lies."""
    depth, samples = _samples(data)
    (add_beside_alpha if samples.ndim == 3 and samples.shape[2] in (2, 4) else add_to)(samples, change)
    return with_chunks(data, _deep(samples) if depth == 16 else _plain(samples))


def _samples(data: bytes) -> tuple[int, Samples]:
    """Bits of a sample, and the samples as they lie: of 8 bit as gray or RGB, of 16 as gray or BGR, each with or without alpha."""
    header = chunks(data)[0].body
    if header[8] == 1 and header[9] == 0:
        raise PictureInvalid("a picture of black and white alone, 1 bit a pixel, hides no mark", code="unsupported_media")
    if header[8] == 16:
        return 16, np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    with opened(data, _KINDS) as image:
        image.load()
        return 8, np.array(image.convert(_mode(image)))


def _mode(image: Image.Image) -> str:
    if image.mode == "P":
        return "RGBA" if image.has_transparency_data else "RGB"
    if "transparency" in image.info:
        return {"L": "LA", "RGB": "RGBA"}[image.mode]
    return image.mode


def _deep(samples: Samples) -> bytes:
    return bytes(cv2.imencode(".png", samples, [cv2.IMWRITE_PNG_COMPRESSION, _LEVEL])[1])


def _plain(samples: Samples) -> bytes:
    file = BytesIO()
    Image.fromarray(samples).save(file, "PNG", compress_level=_LEVEL)
    return file.getvalue()


class Chunk(NamedTuple):
    kind: bytes
    body: bytes

    def to_bytes(self) -> bytes:
        """With length and checksum."""
        tail = zlib.crc32(self.kind + self.body).to_bytes(4, "big")
        return len(self.body).to_bytes(4, "big") + self.kind + self.body + tail


def chunks(data: bytes) -> list[Chunk]:
    """All chunks of a PNG, in order."""
    found, at = [], len(_SIGNATURE)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        found.append(Chunk(data[at + 4 : at + 8], data[at + 8 : end]))
        at = end + 4
    return found


def with_chunks(original: bytes, encoded: bytes) -> bytes:
    """What was encoded, with all that the original says beside its pixels, where it says it: before them or behind."""
    own, theirs = chunks(encoded), chunks(original)
    replaced = _ENCODING if own[0].body[8:10] == theirs[0].body[8:10] else _ENCODING | _OF_COLOURS
    first = next(at for at, chunk in enumerate(theirs) if chunk.kind == b"IDAT")
    before, behind = ([c for c in part if c.kind not in replaced] for part in (theirs[:first], theirs[first:]))
    pixels = [chunk for chunk in own if chunk.kind in (b"PLTE", b"IDAT")]
    return _SIGNATURE + b"".join(chunk.to_bytes() for chunk in (own[0], *before, *pixels, *behind, own[-1]))
