"""Marking a picture's file: out comes a file of the same kind, with all that it says beside its pixels.

The pattern is laid on the upright picture; pixels stay as they lie in the file, and with them what EXIF says of how to turn them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from PIL import UnidentifiedImageError

from matcher.pixels import F32, MAX_SIDE, U8
from matcher.upright import opened, orientation, pixels, shown
from matcher.watermark.embed import MIN_SIDE, draw
from matcher.watermark.errors import PictureInvalid, WatermarkError
from matcher.watermark.jpeg_file import mark_jpeg
from matcher.watermark.png_file import mark_png
from matcher.watermark.registration import Registration
from matcher.watermark.tiff_file import mark_tiff
from matcher.watermark.webp_file import mark_webp

MAX_PIXELS: Final = 120_000_000
_MARKERS: Final[dict[str, Callable[[bytes, F32], bytes]]] = {"JPEG": mark_jpeg, "PNG": mark_png, "TIFF": mark_tiff, "WEBP": mark_webp}


def mark_file(
    data: bytes, *, key: bytes | None = None, payload: int | None = None, secret: str | None = None, transactional: bool = False
) -> tuple[bytes, Registration]:
    """The picture in these bytes, marked, and its registration; the arguments are those of `embed`.

    Raises:
        PictureInvalid: not a picture that can be marked: damaged, of another kind, animated, under 64 pixels or over 120 megapixels.
        ValueError: a key, payload or secret that cannot be.
    """
    with _reading():
        kind, turn, rgb = _look(data)
    change, registration = draw(rgb, key=key, payload=payload, secret=secret, transactional=transactional)
    del rgb  # which of a large picture takes a third of all memory
    with _reading():
        return _MARKERS[kind](data, as_stored(change, turn)), registration


def as_stored(change: F32, turn: int) -> F32:
    """What was drawn for an upright picture, H x W, turned as it lies in a file with this EXIF orientation."""
    across, down, swapped = turn in (2, 3, 6, 7), turn in (3, 4, 7, 8), turn >= 5
    turned = change[:: -1 if down else 1, :: -1 if across else 1]
    return np.ascontiguousarray(turned.T if swapped else turned)


def _look(data: bytes) -> tuple[str, int, U8]:
    """Pillow's name of the file's kind, its orientation, and the upright picture."""
    with opened(data, list(_MARKERS)) as image:
        kind = "JPEG" if image.format == "MPO" else image.format or ""  # a JPEG with further pictures behind it
        check_size(*image.size)
        frames = getattr(image, "n_frames", 1)
        if kind != "JPEG" and frames > 1:
            raise PictureInvalid(f"a file of {frames} pictures; one alone can be marked", code="unsupported_media")
        turn = orientation(image)
        return kind, turn, pixels(shown(image)[0])


def check_size(width: int, height: int) -> None:
    """Raises PictureInvalid: too small or too large to be marked."""
    if min(width, height) < MIN_SIDE:
        raise PictureInvalid(f"the picture has {width} x {height} pixels; a side has at least {MIN_SIDE}", code="image_too_small")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise PictureInvalid(f"the picture has {width} x {height} pixels; at most {MAX_PIXELS} are marked", code="image_too_large")


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except (WatermarkError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise PictureInvalid(f"not a picture of a kind that can be marked ({', '.join(_MARKERS)})", code="unsupported_media") from error
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise PictureInvalid(f"the picture cannot be decoded: {error}") from error
