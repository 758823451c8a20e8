from __future__ import annotations

import io
import random
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.imageinfo import ImageInfo, extension, image_info, sniff

FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"]
TYPES = {name: f"image/{name.lower()}" for name in FORMATS}
PACKET = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description photoshop:Credit="Agency &amp; Sons">
<dc:creator><rdf:Seq><rdf:li>Zoé Müller</rdf:li><rdf:li>A. N. Other</rdf:li></rdf:Seq></dc:creator>
<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">&#169; 2024</rdf:li></rdf:Alt></dc:rights>
</rdf:Description></rdf:RDF></x:xmpmeta>""".encode()


def picture(name: str, size: tuple[int, int] = (33, 21), **options: Any) -> bytes:
    pixels = random.Random(1).randbytes(size[0] * size[1] * 3)
    file = io.BytesIO()
    Image.frombytes("RGB", size, pixels).save(file, name, **options)
    return file.getvalue()


def exif(artist: bytes = b"", rights: bytes = b"") -> Image.Exif:
    block = Image.Exif()
    block[274] = 6  # turn it by 90 degrees
    if artist:
        block[315] = artist
    if rights:
        block[33432] = rights
    return block


def data_set(number: int, text: bytes, record: int = 2) -> bytes:
    return b"\x1c" + bytes([record, number]) + struct.pack(">H", len(text)) + text


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    return jpeg[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def with_iptc(jpeg: bytes, iim: bytes) -> bytes:
    other = b"8BIM\x03\xed\x03odd\x00\x00\x00\x03abc\x00"
    resource = b"8BIM\x04\x04\x00\x00" + struct.pack(">I", len(iim)) + iim + bytes(len(iim) % 2)
    return with_segment(jpeg, 0xED, b"Photoshop 3.0\0" + other + resource)


def with_xmp(jpeg: bytes, packet: bytes) -> bytes:
    return with_segment(jpeg, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    return png[:33] + png_chunk(kind, data) + png[33:]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (33, 21), (640, 3)])
def test_type_and_size(name: str, size: tuple[int, int]) -> None:
    assert image_info(picture(name, size)) == ImageInfo(TYPES[name], *size, None)


@pytest.mark.parametrize("options", [{"lossless": True}, {"exif": exif(b"x")}, {"lossless": True, "exif": exif(b"x")}])
def test_sizes_of_all_kinds_of_webp(options: dict[str, Any]) -> None:
    assert image_info(picture("WEBP", (300, 17), **options))[1:3] == (300, 17)


def test_sizes_of_all_kinds_of_jpeg() -> None:
    for options in ({"progressive": True}, {"optimize": True}, {"icc_profile": bytes(100_000)}, {"comment": b"\xff\xd8\xff\xe1"}):
        assert image_info(picture("JPEG", **options))[1:3] == (33, 21)


def test_the_size_is_the_stored_one() -> None:
    assert image_info(picture("JPEG", (40, 20), exif=exif()))[1:3] == (40, 20)


def test_a_size_of_nothing_is_unknown() -> None:
    assert image_info(picture("GIF")[:6] + bytes(20)) == ImageInfo("image/gif", None, None, None)


def test_a_huge_canvas_is_only_read() -> None:
    jpeg = bytearray(picture("JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    assert image_info(bytes(jpeg))[1:3] == (65535, 65535)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_credit(name: str) -> None:
    data = picture(name, exif=exif("Zoé".encode(), "© 2024 Agency\0The editor".encode()))
    assert image_info(data).credit == "Zoé; © 2024 Agency; The editor"


@pytest.mark.parametrize("name", ["JPEG", "WEBP"])
def test_xmp_credit(name: str) -> None:
    assert image_info(picture(name, xmp=PACKET)).credit == "Agency & Sons; Zoé Müller; A. N. Other; © 2024"


@pytest.mark.parametrize("compressed", [False, True])
def test_xmp_credit_of_a_png(compressed: bool) -> None:
    text = b"\1\0\0\0" + zlib.compress(PACKET) if compressed else b"\0\0en\0title\0" + PACKET
    credit = image_info(with_chunk(picture("PNG"), b"iTXt", b"XML:com.adobe.xmp\0" + text)).credit
    assert credit == "Agency & Sons; Zoé Müller; A. N. Other; © 2024"


def test_png_texts() -> None:
    png = with_chunk(picture("PNG"), b"tEXt", b"Author\0Zo\xe9")
    png = with_chunk(png, b"iTXt", b"Copyright\0\0\0\0\0" + "© Zoé Müller".encode())
    assert image_info(with_chunk(png, b"tEXt", b"Comment\0never mind")).credit == "© Zoé Müller"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_iptc_credit(encoding: str) -> None:
    iim = (
        data_set(116, "© Müller".encode(encoding))
        + data_set(80, "Zoé".encode(encoding))
        + data_set(110, b"Agency")
        + data_set(5, b"A title")
    )
    assert image_info(with_iptc(picture("JPEG"), data_set(0, b"\0\2") + iim)).credit == "Agency; Zoé; © Müller"


def test_what_is_said_twice_stands_once() -> None:
    jpeg = picture("JPEG", exif=exif(b"Agency / Jane", b"  Agency\r\n/ Jane  "))
    assert image_info(with_iptc(jpeg, data_set(80, b"Jane"))).credit == "Agency / Jane"


def test_a_credit_is_bounded() -> None:
    jpeg = picture("JPEG")
    for number in range(1, 5):
        jpeg = with_iptc(jpeg, b"".join(data_set(80, b"%d-%d " % (number, part) * 2000) for part in range(4)))
    credit = image_info(jpeg).credit
    assert credit is not None
    assert len(credit) <= 2000


def test_xmp_expands_nothing() -> None:
    """Entities stay what they are, and nothing takes long."""
    lol = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><dc:creator>&b;</dc:creator>'
    assert image_info(with_xmp(picture("JPEG"), lol)).credit == "&b;"
    for unit in (b"<dc:creator>", b"<rdf:li", b"<dc:creator><", b">", b'photoshop:Credit="', b"&amp;", b"<dc:rights><rdf:li>x</rdf:li>"):
        image_info(with_xmp(picture("JPEG"), (unit * 60_000)[:60_000]))


def test_compressed_texts_are_bounded() -> None:
    bomb = zlib.compress(bytes(50_000_000))
    png = picture("PNG")
    for _ in range(100):
        png = with_chunk(png, b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb[:3000])
    assert image_info(png)[:3] == ("image/png", 33, 21)


def test_a_tiff_that_points_everywhere() -> None:
    """Cyclic and overlapping values, sizes of gigabytes, an IFD on itself."""
    entries = [(315, 2, 0xFFFFFFFF, 8), (33432, 2, 0x7FFFFFFF, 0), (700, 1, 1 << 30, 4), (256, 4, 1, 70000), (257, 3, 1, 3 << 16)]
    ifd = struct.pack(">H", 5000) + b"".join(struct.pack(">HHII", *entry) for entry in entries * 1000)
    info = image_info(b"MM\0*" + struct.pack(">I", 8) + ifd)
    assert info[:3] == ("image/tiff", 70000, 3)
    assert image_info(b"II*\0\0\0\0\0")[:3] == ("image/tiff", None, None)


SAMPLES = [
    *(picture(name) for name in FORMATS),
    *(picture(name, exif=exif(b"Artist", b"a\0b"), xmp=PACKET) for name in ("JPEG", "WEBP")),
    with_iptc(picture("JPEG"), data_set(80, b"Jane") + data_set(116, b"x" * 100)),
    with_chunk(picture("PNG", exif=exif(b"Artist")), b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(PACKET)),
]


@settings(max_examples=300, deadline=None)
@given(
    data=st.sampled_from(SAMPLES),
    end=st.integers(0, 3000),
    flips=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=12),
)
def test_no_damage_raises(data: bytes, end: int, flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(data[:end])
    for at, value in flips:
        if at < len(damaged):
            damaged[at] = value
    _check(image_info(bytes(damaged)))


@settings(max_examples=200, deadline=None)
@given(head=st.sampled_from([b"", *(sample[:12] for sample in SAMPLES), SAMPLES[0][:2] + b"\xff\xe1"]), tail=st.binary(max_size=300))
def test_no_bytes_raise(head: bytes, tail: bytes) -> None:
    _check(image_info(head + tail))


def test_every_truncation() -> None:
    for sample in SAMPLES:
        for end in range(min(len(sample), 1200)):
            _check(image_info(sample[:end]))


def _check(info: ImageInfo) -> None:
    for side in (info.width, info.height):
        assert side is None or 0 < side < 2**32
    if info.credit is not None:
        assert info.credit == info.credit.strip() != ""
        assert len(info.credit) <= 2000
        assert info.credit.encode().find(b"\0") < 0


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (b"", None),
        (b"BMW is not a bitmap, whatever it begins with", None),
        (b"just text", None),
        (b'{"a": 1}', None),
        (b"\0\0\0\x1cftypisom\0\0\2\0", "video/mp4"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0", "video/quicktime"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "image/avif"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "image/avif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "image/heic"),
        (b"\0\0\0\x14ftypmif1\0\0\0\0mif1", "image/heif"),
        (b"RIFF\0\0\0\0AVI LIST", "video/x-msvideo"),
        (b"RIFF\0\0\0\0WEBP", "image/webp"),
        (b"RIFF\0\0\0\0JUNK", None),
        (b"%PDF-1.7\n", "application/pdf"),
        (b"PK\3\4", "application/zip"),
        (b"\xef\xbb\xbf \n<!DOCTYPE HTML><title>x", "text/html"),
        (b"<html><svg></svg></html>", "text/html"),
        (b"<p>hello", "text/html"),
        (b"<!-- c --><html>", "text/html"),
        (b"<!-- c --> text", "text/html"),
        (b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml">', "text/html"),
        (b'<?xml version="1.0"?><rss>', "text/xml"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", "image/svg+xml"),
        (b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg:svg >', "image/svg+xml"),
        (b"<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN'><svg width='1'>", "image/svg+xml"),
        (b"<!doctype nothing>", None),
        (b"<pre", None),
    ],
)
def test_sniff(data: bytes, content_type: str | None) -> None:
    assert sniff(data) == content_type


@pytest.mark.parametrize(
    ("content_type", "ending"),
    [("image/jpeg", "jpg"), ("image/svg+xml; charset=utf-8", "svg"), ("TEXT/HTML", "html"), ("image/unheard-of", "bin"), ("", "bin")],
)
def test_extension(content_type: str, ending: str) -> None:
    assert extension(content_type) == ending


def test_every_type_that_is_sniffed_has_an_extension() -> None:
    for data in [*SAMPLES, b"%PDF-", b"GIF89a", b"\x1aE\xdf\xa3", b"OggS\0", b"ID3", b"8BPS\0\1", b"\0\0\1\0", b"\xff\x0a"]:
        assert extension(sniff(data) or "") != "bin"
