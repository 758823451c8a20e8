from __future__ import annotations

from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from matcher.decode import decode
from matcher.pixels import pixel_hash
from matcher.watermark.detect import detect
from matcher.watermark.errors import PictureInvalid
from matcher.watermark.picture_file import mark_file
from matcher.watermark.png_file import Chunk, chunks, with_chunks
from tests.matcher.pictures import photo

_PHOTO = Image.fromarray(photo(1, 600, 450))
_ENCODING = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"hIST"}


def _alpha() -> Image.Image:
    alpha = np.full((450, 600), 255, np.uint8)
    alpha[:100, :150], alpha[100:200, :150] = 0, 90
    return Image.fromarray(alpha)


def _with_alpha(mode: str) -> Image.Image:
    image = _PHOTO.convert(mode[:-1])
    image.putalpha(_alpha())
    return image


def _png(image: Image.Image = _PHOTO, turn: int = 1, **options: Any) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Ann")
    text.add_itxt("XML:com.adobe.xmp", "<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
    exif = Image.Exif()
    exif[0x0112] = turn
    file = BytesIO()
    image.save(file, "PNG", pnginfo=text, exif=exif, dpi=(300, 240), icc_profile=b"profile" * 30, **options)
    data = file.getvalue()
    return data[:-12] + Chunk(b"tIME", bytes([7, 234, 11, 2, 3, 4, 5])).to_bytes() + data[-12:]


def _deep(samples: np.ndarray[Any, Any]) -> bytes:
    """As PNG of 16 bit, with the chunks of another."""
    return with_chunks(_png(), bytes(cv2.imencode(".png", samples)[1]))


def _said(data: bytes) -> list[Chunk]:
    return [chunk for chunk in chunks(data) if chunk.kind not in _ENCODING]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P"])
@pytest.mark.parametrize("turn", [1, 6])
def test_all_but_the_pixels_stays(mode: str, turn: int) -> None:
    data = _png(_with_alpha(mode) if mode.endswith("A") else _PHOTO.convert(mode), turn)
    marked, registration = mark_file(data)
    assert _said(marked) == _said(data)
    assert registration.pixel_hash == pixel_hash(decode(data)[0])
    assert detect(decode(marked)[0], registration).marked
    with Image.open(BytesIO(data)) as before, Image.open(BytesIO(marked)) as after:
        assert (after.mode, after.size) == (mode if mode != "P" else "RGB", before.size)
        assert after.info["dpi"] == before.info["dpi"]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_and_what_is_transparent_stay(mode: str) -> None:
    image = _with_alpha(mode)
    marked, _ = mark_file(_png(image))
    before, after = np.asarray(image), np.asarray(Image.open(BytesIO(marked)))
    assert np.array_equal(before[..., -1], after[..., -1])
    assert np.array_equal(before[:100, :150], after[:100, :150])
    assert not np.array_equal(before[100:], after[100:])


def test_a_transparent_colour_becomes_alpha() -> None:
    pixels = np.array(_PHOTO)
    pixels[:100, :150] = 9, 8, 7
    marked, _ = mark_file(_png(Image.fromarray(pixels), transparency=(9, 8, 7)))
    after = np.asarray(Image.open(BytesIO(marked)))
    assert after.shape[2] == 4
    assert not after[:100, :150, 3].any()
    assert np.array_equal(after[:100, :150, :3], pixels[:100, :150])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_samples_of_16_bit_stay_so(channels: int) -> None:
    fine = np.random.default_rng(1).integers(0, 257, (450, 600, 4))
    colour = np.asarray(_PHOTO).astype(np.uint16)[..., [2, 1, 0, 0]] * 256 + fine.astype(np.uint16)
    colour[..., 3] = np.asarray(_alpha()).astype(np.uint16) * 257
    samples = colour[..., 0] if channels == 1 else colour[..., :channels]
    data = _deep(np.ascontiguousarray(samples))
    marked, registration = mark_file(data)
    after = cv2.imdecode(np.frombuffer(marked, np.uint8), cv2.IMREAD_UNCHANGED)
    assert after is not None
    assert after.dtype == np.dtype(np.uint16)
    assert after.shape == samples.shape
    change = after.astype(int) - samples
    assert 0 < np.abs(change).mean() < 2 * 257
    assert len(np.unique(change)) > 500  # finer than 8 bit
    assert _said(marked) == _said(data)
    if channels == 4:
        assert not change[..., 3].any()
        assert not change[:100, :150].any()
    assert registration.pixel_hash == pixel_hash(decode(data)[0])
    assert detect(decode(marked)[0], registration).marked


def test_one_bit_is_refused() -> None:
    with pytest.raises(PictureInvalid, match="1 bit") as caught:
        mark_file(_png(_PHOTO.convert("1")))
    assert caught.value.code == "unsupported_media"


def test_an_animation_is_refused() -> None:
    file = BytesIO()
    _PHOTO.save(file, "PNG", save_all=True, append_images=[_PHOTO.rotate(90)])
    with pytest.raises(PictureInvalid, match="2 pictures") as caught:
        mark_file(file.getvalue())
    assert caught.value.code == "unsupported_media"


def test_damage_is_told() -> None:
    data = _png()
    for cut in (data[:40], data[: len(data) // 2], data[:-1000]):
        with pytest.raises(PictureInvalid):
            mark_file(cut)
