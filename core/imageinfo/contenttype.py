"""Content types from the first bytes, as browsers do it (WHATWG MIME Sniffing), with the newer picture formats."""

from __future__ import annotations

import re
from typing import Final

_MAGIC: Final = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0", "image/tiff"),
    (b"MM\0+", "image/tiff"),
    (b"\xff\x0a", "image/jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"8BPS\0\x01", "image/vnd.adobe.photoshop"),
    (b"\0\0\x01\0", "image/x-icon"),
    (b"%PDF-", "application/pdf"),
    (b"%!PS", "application/postscript"),
    (b"\x1aE\xdf\xa3", "video/webm"),
    (b"OggS\0", "application/ogg"),
    (b"FLV\x01", "video/x-flv"),
    (b"\0\0\x01\xba", "video/mpeg"),
    (b"\0\0\x01\xb3", "video/mpeg"),
    (b"ID3", "audio/mpeg"),
    (b"PK\x03\x04", "application/zip"),
    (b"\x1f\x8b\x08", "application/gzip"),
)
_RIFF: Final = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav"}
_BRANDS: Final = {
    b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic", b"heix": "image/heic",
    b"hevc": "image/heic", b"hevx": "image/heic", b"mif1": "image/heif", b"msf1": "image/heif",
    b"qt  ": "video/quicktime", b"M4A ": "audio/mp4",
}  # fmt: skip
_BMP_HEADERS: Final = {12, 16, 40, 52, 56, 64, 108, 124}
_TEXT: Final = 2048
_HTML: Final = re.compile(rb"<(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p|meta|link)[\s>/]", re.I)
_MARKUP: Final = re.compile(rb"<\?xml|<!--|<!doctype|<svg[\s>]", re.I)
_ROOT: Final = re.compile(rb"<(?:[a-z0-9]+:)?(svg|html)[\s>]", re.I)
_EXTENSIONS: Final = {
    "image/jpeg": "jpg", "image/svg+xml": "svg", "image/tiff": "tif", "image/x-icon": "ico", "image/vnd.microsoft.icon": "ico",
    "image/vnd.adobe.photoshop": "psd", "image/bmp": "bmp", "image/png": "png", "image/gif": "gif", "image/webp": "webp",
    "image/avif": "avif", "image/heic": "heic", "image/heif": "heif", "image/jxl": "jxl", "image/jp2": "jp2",
    "video/mp4": "mp4", "video/webm": "webm", "video/quicktime": "mov", "video/x-msvideo": "avi", "video/x-flv": "flv", "video/mpeg": "mpg",
    "audio/mpeg": "mp3", "audio/mp4": "m4a", "audio/wav": "wav", "application/ogg": "ogg",
    "application/pdf": "pdf", "application/postscript": "ps", "application/zip": "zip", "application/gzip": "gz",
    "text/html": "html", "text/xml": "xml",
}  # fmt: skip


def sniff(data: bytes) -> str | None:
    """The content type that the bytes themselves show; None where they show none (plain text shows none)."""
    for magic, content_type in _MAGIC:
        if data.startswith(magic):
            return content_type
    return _container(data) or _bitmap(data) or _text(data[:_TEXT])


def extension(content_type: str) -> str:
    """The file name extension of a content type, without the dot; "bin" where we know none."""
    return _EXTENSIONS.get(content_type.partition(";")[0].strip().lower(), "bin")


def _container(data: bytes) -> str | None:
    if data.startswith(b"RIFF"):
        return _RIFF.get(data[8:12])
    if data[4:8] == b"ftyp":
        return _brand(data)
    return None


def _brand(data: bytes) -> str:
    """By the major brand; a general one (mif1) by the first special one that it is compatible with."""
    end = min(int.from_bytes(data[:4], "big"), 128)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]
    types = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    if brands[0] not in _BRANDS:
        return "video/mp4"
    return next((content_type for content_type in types if content_type != "image/heif"), types[0])


def _bitmap(data: bytes) -> str | None:
    return "image/bmp" if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in _BMP_HEADERS else None


def _text(data: bytes) -> str | None:
    data = data.removeprefix(b"\xef\xbb\xbf").lstrip(b"\t\n\x0c\r ")
    if _HTML.match(data):
        return "text/html"
    if not (markup := _MARKUP.match(data)):
        return None
    root = _ROOT.search(data)
    if root:
        return "image/svg+xml" if root[1].lower() == b"svg" else "text/html"
    return {b"<?xml": "text/xml", b"<!--": "text/html"}.get(markup[0].lower())
