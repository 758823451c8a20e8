from __future__ import annotations

from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from matcher.pixels import pixel_hash
from matcher.upright import opened, shown
from matcher.watermark.detect import detect
from matcher.watermark.errors import PictureInvalid
from matcher.watermark.picture_file import mark_file
from matcher.watermark.samples import Samples
from tests.matcher.pictures import photo

_RGB = photo(1, 600, 450)
_ALPHA = np.full((450, 600, 1), 255, np.uint8)
_ALPHA[:100, :150] = 0
_FINE = _RGB.astype(np.uint16) * 256 + np.random.default_rng(1).integers(0, 256, _RGB.shape).astype(np.uint16)


def _rgb(data: bytes) -> Samples:
    with opened(data, ["TIFF"]) as image:
        return np.array(shown(image)[0])


def _pillow(mode: str = "RGB", **how: Any) -> bytes:
    file = BytesIO()
    said = {"dpi": (300, 240), "icc_profile": b"profile" * 30, "software": "a scanner", "artist": "Ann"}
    Image.fromarray(_RGB).convert(mode).save(file, "TIFF", **said, **how)
    return file.getvalue()


def _written(samples: Samples, **how: Any) -> bytes:
    file = BytesIO()
    tifffile.imwrite(file, samples, software="a scanner", description="a tree", metadata=None, **how)
    return file.getvalue()


_FILES: dict[str, bytes] = {
    **{f"{mode} {how}": _pillow(mode, compression=how) for mode in ("RGB", "L", "CMYK") for how in ("raw", "tiff_lzw", "packbits")},
    "deflate": _pillow(compression="tiff_adobe_deflate"),
    "turned": _pillow(tiffinfo={274: 6}),
    "16 bit, LZW with prediction": bytes(cv2.imencode(".tif", np.ascontiguousarray(_FINE[..., ::-1]))[1]),
    "16 bit": _written(_FINE, photometric="rgb"),
    "16 bit, big-endian": _written(_FINE, photometric="rgb", byteorder=">"),
    "16 bit, gray, big-endian": _written(_FINE[..., 1], photometric="minisblack", byteorder=">"),
    "16 bit, CMYK": _written(np.asarray(Image.fromarray(_RGB).convert("CMYK")).astype(np.uint16) * 257, photometric="separated"),
    "planes": _written(np.ascontiguousarray(np.moveaxis(_RGB, 2, 0)), photometric="rgb", planarconfig="separate"),
    "tiles": _written(_RGB, photometric="rgb", tile=(128, 64)),
    "white is zero": _written(255 - _RGB[..., 1], photometric="miniswhite"),
    "strips of one row": _written(_RGB, photometric="rgb", rowsperstrip=1),
    "alpha": _written(np.concatenate([_RGB, _ALPHA], axis=2), photometric="rgb", extrasamples=["unassalpha"]),
}


def _said(data: bytes) -> dict[str, Any]:
    with tifffile.TiffFile(BytesIO(data)) as file:
        return {tag.name: tag.value for tag in file.pages[0].tags.values() if tag.name not in ("StripOffsets", "StripByteCounts")}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", _FILES)
def test_all_but_the_samples_stays(name: str) -> None:
    data = _FILES[name]
    marked, registration = mark_file(data)
    assert _said(marked) == _said(data)
    assert registration.pixel_hash == pixel_hash(_rgb(data))
    assert detect(_rgb(marked), registration).marked
    assert len(marked) < 1.3 * len(data)


@pytest.mark.parametrize("name", [name for name in _FILES if not any(word in name for word in ("lzw", "LZW", "packbits", "deflate"))])
def test_of_what_is_not_compressed_only_samples_change(name: str) -> None:
    data = _FILES[name]
    marked, _ = mark_file(data)
    assert len(marked) == len(data)
    before, after = (tifffile.imread(BytesIO(file)).astype(int) for file in (data, marked))
    deep = 257 if "16 bit" in name else 1
    assert 0 < np.abs(after - before).mean() < 2 * deep


def test_samples_of_16_bit_are_changed_by_less_than_a_step_of_8() -> None:
    marked, _ = mark_file(_FILES["16 bit"])
    change = tifffile.imread(BytesIO(marked)).astype(int) - _FINE
    assert len(np.unique(change)) > 500


def test_alpha_and_what_is_transparent_stay() -> None:
    marked, _ = mark_file(_FILES["alpha"])
    after = tifffile.imread(BytesIO(marked))
    assert np.array_equal(after[..., 3:], _ALPHA)
    assert np.array_equal(after[:100, :150, :3], _RGB[:100, :150])
    assert not np.array_equal(after[100:, :, :3], _RGB[100:])


def test_nothing_of_the_original_is_left_where_a_strip_has_moved() -> None:
    data = _FILES["RGB tiff_lzw"]
    marked, _ = mark_file(data)
    with tifffile.TiffFile(BytesIO(data)) as file:
        page: Any = file.pages[0]
        strips = [data[start : start + length] for start, length in zip(page.dataoffsets, page.databytecounts, strict=True)]
    assert len(strips) > 3
    assert not any(strip in marked for strip in strips)


_REFUSED: dict[str, bytes] = {
    "whole numbers": _written(_RGB[..., 0].astype(np.float32), photometric="minisblack"),
    "gray, RGB and CMYK": _pillow("P"),
    "8 or 16 bit": _pillow("1"),
    "BigTIFF": _written(_RGB, photometric="rgb", bigtiff=True),
    "compression 7": _pillow(compression="jpeg"),
    "multiplied by alpha": _written(np.concatenate([_RGB, _ALPHA], axis=2), photometric="rgb", extrasamples=["assocalpha"]),
    "2 pictures": _pillow(save_all=True, append_images=[Image.fromarray(_RGB)]),
}


@pytest.mark.parametrize("what", _REFUSED)
def test_other_kinds_are_refused(what: str) -> None:
    with pytest.raises(PictureInvalid, match=what) as caught:
        mark_file(_REFUSED[what])
    assert caught.value.code == "unsupported_media"


def test_samples_are_not_written_over_the_directory() -> None:
    data = bytearray(_FILES["RGB raw"])
    with tifffile.TiffFile(BytesIO(data)) as file:
        page: Any = file.pages[0]
        where = page.tags["StripOffsets"].valueoffset
        data[where : where + 4] = page.offset.to_bytes(4, "little")
    with pytest.raises(PictureInvalid, match="damaged"):
        mark_file(bytes(data))


@pytest.mark.parametrize("share", [0.001, 0.5, 0.99])
def test_damage_is_told(share: float) -> None:
    for name in ("RGB raw", "RGB tiff_lzw", "16 bit"):
        with pytest.raises(PictureInvalid):
            mark_file(_FILES[name][: int(share * len(_FILES[name]))])
