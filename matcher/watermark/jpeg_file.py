"""JPEG files: the mark goes to luma alone, and all else that the file says stays.

Quantisation tables, chroma subsampling, progressive or not, and each APPn and COM segment are those of the input. Chroma is taken
as it is stored and not as it is shown, so that its coefficients come out as they went in.

Where a file is written with the tables that it had, the coefficients of the input lie in the middle of the quantiser's steps, and what
changes a coefficient by less than half a step is lost. The mark is below that where steps are coarse, and nearly all of it is in the three
lowest frequencies of a block: their entries in the luma table are lowered to `MAX_STEP` where they are above, which is below quality 75 in
libjpeg's scale. At quality 50 that keeps three quarters of the statistic instead of half, at 30 as much instead of a fifth, for 5 and 11 %
of the bytes (docs/lamark.md).
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from PIL import Image, JpegImagePlugin

from matcher.pixels import F32
from matcher.upright import opened
from matcher.watermark.samples import add_to, add_to_inks

MAX_STEP: Final = 8
_LOWEST: Final = (0, 1, 8)
"""Where a table has the mean of a block and the lowest frequency along each axis."""
_KINDS: Final = ["JPEG"]
_444, _422, _420 = 0, 1, 2
_ROUNDS: Final = 6
_APP0, _APP2, _APP14, _APP15, _COM, _SOS, _EOI = 0xE0, 0xE2, 0xEE, 0xEF, 0xFE, 0xDA, 0xD9
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})


def mark_jpeg(data: bytes, change: F32) -> bytes:
    """The file with the change, which is given on the canonical grid as the picture lies."""
    with opened(data, _KINDS) as image:
        options = _options(image)
        mode = "YCbCr" if image.mode == "RGB" and not _in_rgb(image) else image.mode
    marked = {"YCbCr": _mark_luma, "CMYK": _mark_inks}.get(mode, _mark_samples)(data, change, options)
    file = BytesIO()
    marked.save(file, "JPEG", **options)
    return with_segments(data, file.getvalue())


def _options(image: Image.Image) -> dict[str, Any]:
    """How the encoder is to write what this picture was read from."""
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    tables = [list(image.quantization[component[3]]) for component in image.layer]
    for entry in _LOWEST:
        tables[0][entry] = min(tables[0][entry], MAX_STEP)
    while len(tables) > 1 and tables[-1] == tables[-2]:
        tables.pop()  # the last one is for all components that follow
    sampling = JpegImagePlugin.get_sampling(image)
    return {
        "qtables": tables,
        "subsampling": max(sampling, _444),  # the encoder knows no others than 4:4:4, 4:2:2 and 4:2:0
        "progressive": bool(image.info.get("progressive")),
        "keep_rgb": _in_rgb(image),
    }


def _in_rgb(image: Image.Image) -> bool:
    """Whether three components are red, green and blue: libjpeg's rules."""
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    if image.mode != "RGB" or "jfif" in image.info:
        return False
    if "adobe" in image.info:
        return image.info.get("adobe_transform") == 0
    return bytes(component[0] for component in image.layer) == b"RGB"


def _mark_luma(data: bytes, change: F32, options: dict[str, Any]) -> Image.Image:
    if options["subsampling"] == _420:
        luma = _decoded(data, "L")
        chroma = [_doubled(plane, luma.size) for plane in _stored_chroma(data)]
    else:
        luma, *chroma = _decoded(data, "YCbCr").split()
        chroma = [_halved(plane) for plane in chroma] if options["subsampling"] == _422 else chroma
    samples = np.array(luma)
    del luma
    add_to(samples, change)
    return Image.merge("YCbCr", (Image.fromarray(samples), *chroma))


def _stored_chroma(data: bytes) -> list[Image.Image]:
    """Both planes of a 4:2:0 picture at their own size: a decoder that halves the picture does not enlarge them."""
    with opened(data, _KINDS) as image:
        image.draft("YCbCr", (max(1, image.width // 2), max(1, image.height // 2)))
        image.load()
        return list(image.split()[1:])


def _doubled(plane: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Each sample four times: the mean that the encoder takes is the sample."""
    return plane.resize((2 * plane.width, 2 * plane.height), Image.Resampling.NEAREST).crop((0, 0, *size))


def _halved(plane: Image.Image) -> Image.Image:
    """A plane of a 4:2:2 picture with each sample that is stored twice, from what a decoder made of it.

    That puts (a + 3 b) / 4 and (3 b + c) / 4 in the place of b between a and c: the mean of both is (a + 6 b + c) / 8, which is undone by
    Van Cittert's iteration; what is left of it is halved each time.
    """
    shown = cv2.copyMakeBorder(np.asarray(plane, np.float32), 0, 0, 0, plane.width % 2, cv2.BORDER_REPLICATE)
    mean = (shown[:, ::2] + shown[:, 1::2]) / 2
    stored = mean
    for _ in range(_ROUNDS):
        stored = stored + mean - cv2.filter2D(stored, -1, np.array([[1, 6, 1]]) / 8, borderType=cv2.BORDER_REPLICATE)
    twice = np.repeat(np.clip(np.rint(stored), 0, 255).astype(np.uint8), 2, axis=1)
    return Image.fromarray(np.ascontiguousarray(twice[:, : plane.width]))


def _mark_inks(data: bytes, change: F32, _options: dict[str, Any]) -> Image.Image:
    image = _decoded(data, None)
    samples = np.array(image)
    add_to_inks(samples, change)
    return Image.frombuffer(image.mode, image.size, samples)


def _mark_samples(data: bytes, change: F32, _options: dict[str, Any]) -> Image.Image:
    """Gray, or red, green and blue."""
    samples = np.array(_decoded(data, None))
    add_to(samples, change)
    return Image.fromarray(samples)


def _decoded(data: bytes, mode: str | None) -> Image.Image:
    with opened(data, _KINDS) as image:
        if mode is not None:
            image.draft(mode, image.size)
        image.load()
        return image


class Segment(NamedTuple):
    """A marker, its bytes with the length, and the rest of the segment alone."""

    marker: int
    whole: bytes
    body: bytes


def with_segments(original: bytes, encoded: bytes) -> bytes:
    """What was encoded, with the metadata of the original in place of its own.

    The encoder's Adobe segment stays, as it says which colours it wrote. The index of further pictures in the file (MPF) goes with them.
    """
    own, start = segments(encoded)
    adobe = [s for s in own if s.marker == _APP14]
    kept = [s for s in segments(original)[0] if _is_metadata(s) and not (adobe and s.marker == _APP14)]
    rest = [s for s in own if not _is_metadata(s)]
    return b"".join([b"\xff\xd8", *(s.whole for s in (*kept, *adobe, *rest)), encoded[start:]])


def _is_metadata(segment: Segment) -> bool:
    applications = _APP0 <= segment.marker <= _APP15 and not (segment.marker == _APP2 and segment.body.startswith(b"MPF\0"))
    return applications or segment.marker == _COM


def segments(data: bytes) -> tuple[list[Segment], int]:
    """What stands before the first scan, and where that starts."""
    found, at = [], 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 3:
        marker = data[at + 1]
        if marker in (_SOS, _EOI):
            break
        if marker in (0x00, 0xFF) or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if length < 2:  # damage, which decoders pass over; written again it would end the file
            at += 2
            continue
        end = at + 2 + length
        found.append(Segment(marker, data[at:end], data[at + 4 : end]))
        at = end
    return found, at
