from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from matcher.decode import decode
from matcher.pixels import pixel_hash
from matcher.watermark.detect import detect
from matcher.watermark.errors import PictureInvalid
from matcher.watermark.picture_file import mark_file
from matcher.watermark.webp_file import chunks, quality, quantiser
from tests.matcher.pictures import photo

_PHOTO = Image.fromarray(photo(1, 600, 450))
_SAID = (b"ICCP", b"EXIF", b"XMP ")


def _translucent() -> Image.Image:
    alpha = np.full((450, 600), 255, np.uint8)
    alpha[:100, :150], alpha[100:200, :150] = 0, 90
    image = _PHOTO.copy()
    image.putalpha(Image.fromarray(alpha))
    return image


def _webp(image: Image.Image = _PHOTO, turn: int = 1, **how: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = turn, "Ann"
    file = BytesIO()
    image.save(file, "WEBP", exif=exif, icc_profile=b"profile" * 30, xmp=b"<x:xmpmeta/>", exact=True, **how)
    return file.getvalue()


@pytest.mark.parametrize("image", [_PHOTO, _translucent()])
@pytest.mark.parametrize("how", [{"quality": 80}, {"quality": 40}, {"lossless": True}, {"quality": 80, "turn": 8}])
def test_all_but_the_pixels_stays(image: Image.Image, how: dict[str, Any]) -> None:
    data = _webp(image, **how)
    marked, registration = mark_file(data)
    before, after = chunks(data), chunks(marked)
    assert [chunk.kind for chunk in after] == [chunk.kind for chunk in before]
    assert [chunk for chunk in after if chunk.kind in _SAID] == [chunk for chunk in before if chunk.kind in _SAID]
    assert registration.pixel_hash == pixel_hash(decode(data)[0])
    assert detect(decode(marked)[0], registration).marked
    assert len(marked) < 1.3 * len(data)


def test_alpha_and_what_is_transparent_stay() -> None:
    marked, _ = mark_file(_webp(_translucent(), lossless=True))
    before, after = np.asarray(_translucent()), np.asarray(Image.open(BytesIO(marked)))
    assert np.array_equal(before[..., 3], after[..., 3])
    assert np.array_equal(before[:100, :150], after[:100, :150])
    assert not np.array_equal(before[100:], after[100:])


@pytest.mark.parametrize("told", [20, 50, 75, 90, 100])
def test_the_quality_is_read_from_the_frame(told: int) -> None:
    file = BytesIO()
    _PHOTO.save(file, "WEBP", quality=told)
    found = quality(quantiser(next(chunk.body for chunk in chunks(file.getvalue()) if chunk.kind == b"VP8 ")))
    assert told - 2 <= found <= told + 30  # the finest of four segments is finer than what was told


def test_an_animation_is_refused() -> None:
    with pytest.raises(PictureInvalid, match="2 pictures") as caught:
        mark_file(_webp(save_all=True, append_images=[_PHOTO.rotate(90)]))
    assert caught.value.code == "unsupported_media"


@pytest.mark.parametrize("share", [0.001, 0.01, 0.5])
def test_damage_is_told(share: float) -> None:
    data = _webp(quality=80)
    with pytest.raises(PictureInvalid):
        mark_file(data[: int(share * len(data))])
