"""What the bytes of a picture say before anybody decodes it: type, size, credit.

Pure Python over the headers; bounded in time and memory, and never raises, whatever the bytes are: what cannot be read is None.
"""

from __future__ import annotations

from typing import NamedTuple

from core.imageinfo.contenttype import extension, sniff
from core.imageinfo.credit import credit_line
from core.imageinfo.header import read_header

__all__ = ["ImageInfo", "extension", "image_info", "sniff"]


class ImageInfo(NamedTuple):
    content_type: str | None
    """From the bytes; None where nothing known begins so."""
    width: int | None
    """Pixels as stored; the orientation that EXIF may ask for is not applied."""
    height: int | None
    credit: str | None
    """Who made it and whose it is, as its EXIF, IPTC, XMP or PNG texts say; different ones joined by "; "."""


def image_info(data: bytes) -> ImageInfo:
    """Type, size and credit of a picture.

    Args:
        data: the file, or its beginning (sizes stand in the first kilobytes, credits nearly always in the first 128).
    """
    content_type = sniff(data)
    header = read_header(content_type, data)
    return ImageInfo(content_type, header.width or None, header.height or None, credit_line(header))
