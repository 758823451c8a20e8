"""Bad input: a clear error or a right answer, each said in a row."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from PIL import Image

import filigrane
from bench.copies.run import Run
from core.errors import InvalidImage, UnsupportedMedia
from filigrane.demo.pictures import mountains
from matcher.decode import decode, read_print
from matcher.pixels import U8

_CLEAR: Final = (InvalidImage, UnsupportedMedia, filigrane.IndexInvalid, ValueError, KeyError)
_NAME: Final = "mountains"


class Case(NamedTuple):
    """`expected`: what is said when all is well; several where either would be right."""

    name: str
    act: Callable[[filigrane.Index], str]
    expected: tuple[str, ...]


def run(run: Run) -> dict[str, Any]:
    """Against an index of one picture."""
    index = filigrane.Index()
    index.add(_NAME, mountains(0))
    rows = [
        {"input": case.name, "outcome": (said := _said(case, index)), "right": said.split(":")[0] in case.expected} for case in _cases()
    ]
    return {"rows": rows, "wrong": sum(not row["right"] for row in rows)}


def markdown(result: Mapping[str, Any]) -> list[str]:
    rows = [f"| {row['input']} | {row['outcome']} | {'yes' if row['right'] else 'NO'} |" for row in result["rows"]]
    return ["| input | outcome | right |", "|---|---|---|", *rows]


def _said(case: Case, index: filigrane.Index) -> str:
    try:
        return case.act(index)
    except _CLEAR as error:
        return f"{type(error).__name__}: {error}"


def _cases() -> list[Case]:
    files = [
        ("1 x 1", _png(np.zeros((1, 1, 3), np.uint8)), ("nothing found",)),
        ("1 x 65,535", _png(np.full((65_535, 1, 3), 90, np.uint8)), ("nothing found",)),
        ("65,535 x 1", _png(np.full((1, 65_535, 3), 90, np.uint8)), ("nothing found",)),
        ("1 x 65,536", _png(np.full((65_536, 1, 3), 90, np.uint8)), ("InvalidImage",)),
        ("all black", _png(np.zeros((600, 800, 3), np.uint8)), ("nothing found",)),
        ("all white", _png(np.full((600, 800, 3), 255, np.uint8)), ("nothing found",)),
        ("a copy, gray JPEG", _saved("L", "JPEG"), ("copy found",)),
        ("a copy, CMYK JPEG", _saved("CMYK", "JPEG"), ("copy found",)),
        ("a copy, 16-bit PNG", _sixteen_bits(), ("copy found",)),
        ("a copy, palette GIF", _saved("P", "GIF"), ("copy found",)),
        ("a copy, PNG with transparency", _saved("RGBA", "PNG"), ("copy found",)),
        ("a copy, JPEG cut in the middle", _saved("RGB", "JPEG")[:40_000], ("InvalidImage", "copy found")),
        ("a copy, JPEG cut after 30 bytes", _saved("RGB", "JPEG")[:30], ("InvalidImage",)),
        ("a copy, 100 megapixels", _large(12_000, 8_300), ("copy found",)),
        ("144 megapixels", _large(12_000, 12_000), ("InvalidImage",)),
        ("no bytes", b"", ("InvalidImage",)),
        ("text", b"hello" * 100, ("InvalidImage",)),
        ("BMP", _saved("RGB", "BMP"), ("UnsupportedMedia",)),
    ]
    return [
        *(Case(name, lambda index, data=data: _searched(index, data), expected) for name, data, expected in files),  # type: ignore[misc]
        Case("an array of floats", lambda index: _asked(index, np.zeros((9, 9, 3))), ("ValueError",)),  # type: ignore[arg-type]
        Case("an array without colour", lambda index: _asked(index, np.zeros((9, 9), np.uint8)), ("ValueError",)),
        Case("an array without pixels", lambda index: _asked(index, np.zeros((0, 9, 3), np.uint8)), ("ValueError",)),
        Case("the same id twice", _twice, ("replaced",)),
        Case("an unknown id removed", _removed, ("KeyError",)),
        Case("a search in an empty index", lambda _: _asked(filigrane.Index(), mountains(0)), ("nothing found",)),
        Case(
            "a snapshot of another version", lambda index: _loaded(index, lambda data: bytes([data[0] ^ 1]) + data[1:]), ("IndexInvalid",)
        ),
        Case("a snapshot with a flipped bit", lambda index: _loaded(index, _flipped), ("IndexInvalid",)),
        Case("half a snapshot", lambda index: _loaded(index, lambda data: data[: len(data) // 2]), ("IndexInvalid",)),
        Case("an empty snapshot", lambda index: _loaded(index, lambda _: b""), ("IndexInvalid",)),
    ]


def _searched(index: filigrane.Index, data: bytes) -> str:
    """Decoded whole, and small and gray as the matcher does: both have to say the same."""
    said = _asked(index, decode(data)[0])
    small = index._copies.search(read_print(data))
    return said if bool(small) == said.startswith("copy found") else f"{said}, but not when it is decoded small"


def _asked(index: filigrane.Index, rgb: U8) -> str:
    hits = index.search(rgb)
    return f"{hits[0].verdict} found: score {hits[0].score:.0f}" if hits else "nothing found"


def _twice(_: filigrane.Index) -> str:
    index = filigrane.Index()
    for seed in (1, 0):
        index.add(_NAME, mountains(seed))
    first, second = index.search(mountains(1)), index.search(mountains(0))
    return "replaced" if len(index) == 1 and not first and len(second) == 1 else f"{len(index)} pictures, {len(first)} of the first found"


def _removed(index: filigrane.Index) -> str:
    index.remove("nobody")
    return "nothing said"


def _loaded(index: filigrane.Index, damage: Callable[[bytes], bytes]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        index.save(path)
        path.write_bytes(damage(path.read_bytes()))
        return f"loaded: {len(filigrane.Index.load(path))} pictures"


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :]


def _png(rgb: U8) -> bytes:
    return _bytes(Image.fromarray(rgb), "PNG")


def _saved(mode: str, kind: str) -> bytes:
    return _bytes(Image.fromarray(mountains(0)).convert(mode), kind)


def _sixteen_bits() -> bytes:
    luma = np.asarray(Image.fromarray(mountains(0)).convert("L"), np.uint16)
    return _bytes(Image.fromarray(luma * np.uint16(257)), "PNG")


def _large(width: int, height: int) -> bytes:
    return _bytes(Image.fromarray(mountains(0)).resize((width, height), Image.Resampling.BILINEAR), "JPEG")


def _bytes(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()
