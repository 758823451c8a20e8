from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from matcher.upright import opened
from matcher.watermark.errors import PictureInvalid
from matcher.watermark.picture_file import mark_file
from tests.matcher.pictures import photo


def _file(kind: str, **how: object) -> bytes:
    file = BytesIO()
    Image.fromarray(photo(2, 96, 80)).save(file, kind, **how)
    return file.getvalue()


_FILES = {
    "JPEG": _file("JPEG"),
    "progressive JPEG": _file("JPEG", progressive=True),
    "PNG": _file("PNG"),
    "WebP": _file("WEBP"),
    "TIFF": _file("TIFF"),
    "TIFF with LZW": _file("TIFF", compression="tiff_lzw"),
}


@pytest.mark.parametrize("kind", _FILES)
@given(
    changes=st.lists(st.tuples(st.integers(0, 600) | st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.just(0) | st.integers(0, 100),
)
@settings(max_examples=30, deadline=None)
def test_damage_is_told_or_does_no_harm(kind: str, changes: list[tuple[int, int]], cut: int) -> None:
    damaged = bytearray(_FILES[kind])
    for at, byte in changes:
        damaged[at % len(damaged)] = byte
    try:
        marked, registration = mark_file(bytes(damaged[: len(damaged) - cut]))
    except PictureInvalid:
        return
    with opened(marked, ["JPEG", "PNG", "TIFF", "WEBP"]) as image:
        assert sorted(image.size) == sorted((registration.width, registration.height))
