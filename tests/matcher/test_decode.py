from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.errors import FiligraneError, InvalidImage, Unavailable, UnsupportedMedia
from matcher.copies.features import SIDE, registered
from matcher.copies.verdict import judge
from matcher.decode import DECODED_SIDE, Decoders, Limits, check, decode, decode_gray, read_print
from matcher.pixels import gray, pixel_hash, resized
from tests.matcher.pictures import encoded, photo


def eat() -> int:
    return len(bytes(8 << 30))


def refuse() -> None:
    raise InvalidImage("no", code="odd")


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("JPEG", {"quality": 95})])
def test_formats(kind: str, options: dict[str, Any]) -> None:
    rgb, size = decode(encoded(photo(1), kind, **options))
    assert size == (600, 450)
    assert np.abs(rgb.astype(int) - photo(1)).mean() < 6


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    rgb, _ = decode(_saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert (rgb[0, 0] == (255, 0, 0)).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "I;16", "CMYK"])
def test_modes(mode: str) -> None:
    gray = Image.fromarray(np.tile(np.arange(0, 240, 8, dtype=np.uint8), (30, 1)))
    image = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257) if mode == "I;16" else gray.convert(mode)
    rgb, _ = decode(_saved(image, "JPEG" if mode == "CMYK" else "PNG"))
    assert rgb.shape == (30, 30, 3)
    if mode != "1":
        assert np.abs(rgb[..., 0].astype(int) - np.asarray(gray)).max() < 12


def test_transparent_is_white() -> None:
    rgb, _ = decode(_saved(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "PNG"))
    assert (rgb == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(photo(1)).resize((2400, 1600))
    data = _saved(picture, "JPEG", exif=exif)
    rgb, size = decode(data, DECODED_SIDE)
    assert size == ((1600, 2400) if orientation >= 5 else (2400, 1600))
    assert (rgb.shape[1] > rgb.shape[0]) == (size[0] > size[1])
    assert max(rgb.shape) >= DECODED_SIDE


def test_the_pixel_hash_ignores_metadata_and_lossless_format() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    image = Image.fromarray(photo(1))
    same = (_saved(image, "PNG"), _saved(image, "PNG", exif=exif, compress_level=1), _saved(image, "WEBP", lossless=True))
    hashes = {pixel_hash(decode(data)[0]) for data in same}
    assert len(hashes) == 1
    assert pixel_hash(photo(2)) not in hashes


@pytest.mark.parametrize("orientation", range(1, 9))
def test_small_and_gray_it_is_as_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = _saved(Image.fromarray(photo(1)).resize((2400, 1600)), "JPEG", exif=exif, quality=95)
    small, size = decode_gray(data, SIDE)
    whole, whole_size = decode(data)
    assert size == whole_size
    assert max(small.shape) == 300, "the decoder's scale of 1/8"
    assert np.abs(resized(gray(whole), max(small.shape)).astype(int) - small).mean() < 4


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "L"), ("PNG", "LA"), ("GIF", "P"), ("WEBP", "RGB")])
def test_small_and_gray_of_every_kind(kind: str, mode: str) -> None:
    data = _saved(Image.fromarray(photo(1)).convert(mode), kind, quality=90)
    small, size = decode_gray(data, SIDE)
    assert size == (600, 450)
    assert small.shape == ((225, 300) if kind == "JPEG" else (450, 600))
    assert np.abs(resized(gray(decode(data)[0]), max(small.shape)).astype(int) - small).mean() < 4


def test_a_gray_picture_with_transparency_is_on_white() -> None:
    data = _saved(Image.new("L", (9, 9), 0), "PNG", transparency=0)
    assert (decode_gray(data, SIDE)[0] == 255).all()


def test_a_fingerprint_of_the_small_picture_is_a_copy_of_the_whole_one() -> None:
    data = _saved(Image.fromarray(photo(1)).resize((1500, 1125)), "JPEG", quality=90)
    seen = read_print(data)
    assert (seen.width, seen.height) == (1500, 1125)
    found = judge(registered(decode(data)[0]), seen, "scale", 1)
    assert found is not None
    assert found.name == "copy"


def test_a_bomb_is_refused_by_its_header() -> None:
    data = bytearray(_saved(Image.new("L", (8, 8)), "PNG"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    with pytest.raises(InvalidImage, match="60000 x 60000"):
        check(bytes(data))
    data[16:24] = (65_536).to_bytes(4, "big") + (1).to_bytes(4, "big")
    with pytest.raises(InvalidImage, match="65536 x 1 pixels; a side has at most 65535"):
        check(bytes(data))
    with pytest.raises(InvalidImage, match="bytes"):
        check(b"\xff" * 20, Limits(length=10))


def test_other_kinds_are_told_apart_from_garbage() -> None:
    with pytest.raises(UnsupportedMedia):
        check(_saved(Image.new("RGB", (8, 8)), "BMP"))
    with pytest.raises(InvalidImage):
        check(b"hello")


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 3000), at=st.integers(0, 3000), flip=st.integers(0, 255), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]))
def test_damaged_bytes_raise_only_our_errors(cut: int, at: int, flip: int, kind: str) -> None:
    data = bytearray(encoded(photo(4, 40, 30), kind))
    data[at % len(data)] ^= flip
    for read in (decode, partial(decode_gray, side=SIDE)):
        with suppress(FiligraneError):
            read(bytes(data[: len(data) - cut]), limits=Limits(pixels=1_000_000))


def test_a_worker_that_dies_or_hangs_fails_one_picture_and_is_replaced() -> None:
    with Decoders(1, Limits(seconds=3)) as pool:
        pids = [pool.run(os.getpid)]
        for deed in (partial(os._exit, 1), partial(time.sleep, 600)):
            assert pool.run(os.getpid) == pids[-1]
            with pytest.raises(InvalidImage) as caught:
                pool.run(deed)
            assert caught.value.code == "decoder_died"
            pids.append(pool.run(os.getpid))
        assert len(set(pids)) == 3


def test_errors_and_results_come_through(decoders: Decoders) -> None:
    before = decoders.run(os.getpid)
    with pytest.raises(InvalidImage) as caught:
        decoders.run(refuse)
    assert caught.value.code == "odd"
    with pytest.raises(InvalidImage) as caught:
        decoders.run(eat)
    assert caught.value.code == "image_too_large"
    seen = decoders.fingerprint(encoded(photo(1), "JPEG"))
    assert (seen.width, seen.height) == (600, 450)
    assert len(seen.points) > 100
    assert decoders.pixels(encoded(photo(1), "JPEG")).shape == (450, 600, 3)
    assert decoders.run(os.getpid) == before


def test_a_closed_pool_is_unavailable() -> None:
    pool = Decoders(1)
    pool.close()
    with pytest.raises(Unavailable):
        pool.run(os.getpid)
