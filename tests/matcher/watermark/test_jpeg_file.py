from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, JpegImagePlugin

from matcher.decode import decode
from matcher.pixels import pixel_hash
from matcher.watermark.detect import detect
from matcher.watermark.errors import PictureInvalid
from matcher.watermark.jpeg_file import MAX_STEP, segments
from matcher.watermark.picture_file import mark_file
from tests.matcher.pictures import photo

_PHOTO = Image.fromarray(photo(1, 900, 675))
_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'/></x:xmpmeta>"
_IPTC = b"Photoshop 3.0\x008BIM\x04\x04\x00\x00\x00\x00\x00\x08\x1c\x02\x50\x00\x03Ann\x00"
_CREDIT = b"\xff\xed" + (len(_IPTC) + 2).to_bytes(2, "big") + _IPTC


def _exif(turn: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = turn, "Ann"
    return exif


def _jpeg(image: Image.Image = _PHOTO, turn: int = 1, **options: Any) -> bytes:
    file = BytesIO()
    said = {"exif": _exif(turn), "icc_profile": _PROFILE, "xmp": _XMP, "comment": b"by Ann", "dpi": (300, 240)}
    image.save(file, "JPEG", **({"quality": 85} | said | options))
    start, rest = file.getvalue()[:2], file.getvalue()[2:]
    at = 2 + int.from_bytes(rest[2:4], "big")  # after the first segment
    return start + rest[:at] + _CREDIT + rest[at:]


def _metadata(data: bytes) -> list[bytes]:
    return sorted(s.whole for s in segments(data)[0] if 0xE0 <= s.marker <= 0xEF or s.marker == 0xFE)


def _encoding(data: bytes) -> tuple[Any, ...]:
    with Image.open(BytesIO(data)) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        return image.mode, image.size, image.quantization, JpegImagePlugin.get_sampling(image), "progressive" in image.info


def _as(mode: str) -> dict[str, Any]:
    """A JPEG of components in that colour space."""
    if mode == "RGB components":
        return {"image": _PHOTO, "keep_rgb": True}
    return {"image": _PHOTO.convert(mode)}


@pytest.mark.parametrize(
    "how",
    [
        {"subsampling": 2},
        {"subsampling": 1, "progressive": True},
        {"subsampling": 0, "quality": 95},
        _as("L"),
        _as("L") | {"progressive": True, "quality": 75},
        _as("CMYK"),
        _as("RGB components"),
    ],
)
def test_all_but_the_pixels_stays(how: dict[str, Any]) -> None:
    data = _jpeg(**how)
    marked, registration = mark_file(data)
    assert _encoding(marked) == _encoding(data)
    assert _metadata(marked) == _metadata(data)
    before, after = decode(data)[0], decode(marked)[0]
    assert registration.pixel_hash == pixel_hash(before)
    assert detect(after, registration).marked
    assert not detect(before, registration).marked
    assert 10 * np.log10(255**2 / np.mean((after.astype(float) - before) ** 2)) > 47.5


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_lies_in_its_file_as_it_lay(turn: int) -> None:
    data = _jpeg(turn=turn)
    marked, registration = mark_file(data)
    assert _metadata(marked) == _metadata(data)
    assert (registration.width, registration.height) == ((675, 900) if turn >= 5 else (900, 675))
    found = detect(decode(marked)[0], registration)
    assert found.marked
    assert found.transform is not None
    assert np.allclose(found.transform, np.eye(3), atol=1)


def test_colours_made_of_inks_and_luma() -> None:
    """YCCK: the bytes of a CMYK file, said to be that."""
    data = _jpeg(**_as("CMYK"))
    (adobe,) = (s.whole for s in segments(data)[0] if s.marker == 0xEE)
    ycck = data.replace(adobe, adobe[:-1] + b"\x02")
    marked, registration = mark_file(ycck)
    assert _encoding(marked)[:2] == ("CMYK", (900, 675))
    assert detect(decode(marked)[0], registration).marked


@pytest.mark.parametrize("quality", [50, 30])
def test_coarse_steps_do_not_swallow_the_mark(quality: int) -> None:
    data = _jpeg(quality=quality)
    marked, registration = mark_file(data, payload=77)
    before, after = _encoding(data)[2], _encoding(marked)[2]
    assert [i for i in range(64) if before[0][i] != after[0][i]] == [0, 1, 8]
    assert max(after[0][i] for i in (0, 1, 8)) == MAX_STEP
    assert after[1] == before[1]
    assert detect(decode(marked)[0], registration).payload == 77


@pytest.mark.parametrize("size", [(900, 675), (301, 207)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_chroma_comes_out_as_it_went_in(subsampling: int, size: tuple[int, int]) -> None:
    data = _jpeg(_PHOTO.resize(size), subsampling=subsampling)
    before, after = (_chroma(file) for file in (data, mark_file(data)[0]))
    assert before.shape == after.shape == (size[1], size[0], 2)
    assert np.mean(before != after) < 0.05


def _chroma(data: bytes) -> np.ndarray[Any, Any]:
    with Image.open(BytesIO(data)) as image:
        image.draft("YCbCr", image.size)
        return np.array(image)[..., 1:]


def test_junk_between_segments_and_further_pictures_are_left_out() -> None:
    data = _jpeg()
    index = b"\xff\xe2\x00\x08MPF\x00ab"
    odd = data[:2] + b"\xff\xff" + data[3:20] + index + data[20:] + data
    marked, _ = mark_file(odd)
    assert _metadata(marked) == _metadata(data)
    assert len(marked) < 1.1 * len(data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unsupported_media"),
        (b"GIF89a" + bytes(100), "unsupported_media"),
        (_jpeg()[:9000], "invalid_image"),
        (_jpeg(_PHOTO.resize((200, 63))), "image_too_small"),
        (_jpeg()[:-2].replace(b"\x08\x02\xa3\x03\x84", b"\x08\xff\x00\xff\x00"), "image_too_large"),
    ],
)
def test_what_cannot_be_marked(data: bytes, code: str) -> None:
    with pytest.raises(PictureInvalid) as caught:
        mark_file(data)
    assert caught.value.code == code


@pytest.mark.parametrize("wrong", [{"key": b"short"}, {"payload": -1}, {"payload": 1 << 24}, {"secret": ""}])
def test_arguments_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        mark_file(_jpeg(), **wrong)
    assert not isinstance(caught.value, PictureInvalid)


def test_two_runs_make_two_marks_and_a_transactional_one_is_small() -> None:
    data = _jpeg()
    (first, one), (second, two) = mark_file(data), mark_file(data, transactional=True)
    assert first != second
    assert one.key != two.key
    assert two.transactional
    assert detect(decode(second)[0], two.with_original(one)).marked
    assert not detect(decode(second)[0], one).marked


def test_metadata_do_not_change_the_pixel_hash() -> None:
    plain = BytesIO()
    _PHOTO.save(plain, "JPEG", quality=85)
    assert mark_file(plain.getvalue())[1].pixel_hash == mark_file(_jpeg())[1].pixel_hash
    other = _PHOTO.copy()
    other.putpixel((5, 5), (255, 0, 255))
    assert mark_file(_jpeg(other))[1].pixel_hash != mark_file(_jpeg())[1].pixel_hash
