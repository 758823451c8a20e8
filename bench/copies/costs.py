"""Processor time per stage of a search, as multiples of what Pillow takes to decode the picture to RGB.

Pictures are JPEGs of 0.67 megapixels and quality 85, half of them registered. A figure is the mean over the pictures of the least of
several runs, in thread time: what other processes do meanwhile hardly counts.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import faiss
import numpy as np
from PIL import Image

import filigrane
from bench.copies.goals import KNOWN, UNKNOWN
from bench.copies.plots import stages
from bench.copies.run import Run, spread_out
from bench.copies.sets import Picture
from bench.copies.systems import filigrane_index
from matcher.copies.features import POINTS, SIDE, Fingerprint, fingerprint_gray
from matcher.copies.index import CopyIndex
from matcher.copies.sift import extract
from matcher.copies.verdict import judge
from matcher.decode import decode_gray, read_print
from matcher.pixels import U8, resized

PIXELS: Final = 670_000
_REPEATS: Final = 7
_SAMPLES: Final = 24


class Sample(NamedTuple):
    """A file, and what the stages make of it one after the other; `registered`: itself if it is, else another picture."""

    data: bytes
    rgb: U8
    gray: U8
    print_: Fingerprint
    registered: Fingerprint


Stage = Callable[[Sample], object]


def run(run: Run) -> dict[str, Any]:
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(1)
    api = filigrane.Index.load(filigrane_index(run.sets.registered, run.cache))
    index = api._copies  # what happens inside is timed step by step
    count = 6 if run.quick else _SAMPLES
    known = [_sample(picture, index.fingerprint(picture.name)) for picture in spread_out(run.sets.registered, count)]
    unknown = [_sample(picture, known[0].print_) for picture in spread_out(run.sets.distractors, count)]
    rgb_ms = _mean([*known, *unknown], lambda sample: _rgb(sample.data))
    rows = [_row("decode RGB, Pillow", rgb_ms, rgb_ms)]
    for name, stage, samples in _stages(index, api, known, unknown):
        rows.append(_row(name, _mean(samples, stage), rgb_ms))
    return {"registered": len(index), "bytes": int(np.mean([len(s.data) for s in known])), "megapixels": PIXELS / 1e6, "rows": rows}


def _stages(
    index: CopyIndex[str | int], api: filigrane.Index, known: Sequence[Sample], unknown: Sequence[Sample]
) -> list[tuple[str, Stage, Sequence[Sample]]]:
    every = [*known, *unknown]

    def whole(sample: Sample) -> object:
        return index.search(read_print(sample.data), "affine")

    return [
        ("decode gray, small", lambda s: _gray(s.data), every),
        ("features", lambda s: extract(_small(s.gray), POINTS), every),
        ("fingerprint: features, thumbnail, look", lambda s: fingerprint_gray(s.gray), every),
        ("codes and vote", lambda s: index.candidates(s.print_), every),
        ("geometry and verdict of one candidate: a copy", lambda s: judge(s.registered, s.print_, "affine"), known),
        ("geometry and verdict of one candidate: none", lambda s: judge(s.registered, s.print_, "affine"), unknown),
        (KNOWN, whole, known),
        (UNKNOWN, whole, unknown),
        ("`filigrane.Index.search` of decoded RGB: a copy", lambda s: api.search(s.rgb, transform="affine"), known),
        ("`filigrane.Index.search` of decoded RGB: no copy", lambda s: api.search(s.rgb, transform="affine"), unknown),
        (f"beside it: OpenCV's SIFT at {SIDE} pixels, features alone", lambda s: _SIFT.detectAndCompute(_small(s.gray), None), every),
        *_peers(every),
    ]


_SIFT: Final = cv2.SIFT.create(POINTS)


def _peers(samples: Sequence[Sample]) -> list[tuple[str, Stage, Sequence[Sample]]]:
    import imagehash
    import pdqhash

    return [
        ("beside it: PDQ of decoded RGB", lambda s: pdqhash.compute(s.rgb), samples),
        ("beside it: ImageHash pHash of decoded RGB", lambda s: imagehash.phash(Image.fromarray(s.rgb)), samples),
    ]


def _sample(picture: Picture, registered: Fingerprint) -> Sample:
    data = _file(picture.load())
    gray = _gray(data)
    return Sample(data, _rgb(data), gray, fingerprint_gray(gray), registered)


def _file(rgb: U8) -> bytes:
    scale = (PIXELS / (rgb.shape[0] * rgb.shape[1])) ** 0.5
    size = round(rgb.shape[1] * scale), round(rgb.shape[0] * scale)
    file = io.BytesIO()
    Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
    return file.getvalue()


def _rgb(data: bytes) -> U8:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def _gray(data: bytes) -> U8:
    return decode_gray(data, SIDE)[0]


def _small(gray: U8) -> U8:
    return resized(gray, SIDE)


def _mean(samples: Sequence[Sample], stage: Stage) -> float:
    """Milliseconds."""
    return float(np.mean([_least(stage, sample) for sample in samples])) * 1e3


def _least(stage: Stage, sample: Sample) -> float:
    taken = []
    for _ in range(_REPEATS):
        begun = time.thread_time()
        stage(sample)
        taken.append(time.thread_time() - begun)
    return min(taken)


def _row(name: str, ms: float, rgb_ms: float) -> dict[str, Any]:
    return {"stage": name, "ms": round(ms, 3), "ratio": round(ms / rgb_ms, 3)}


def plot(result: Mapping[str, Any], folder: Path) -> None:
    stages(result["rows"], folder / "copies-costs.svg")


def markdown(result: Mapping[str, Any]) -> list[str]:
    rows = [f"| {row['stage']} | {row['ms']:.2f} | {row['ratio']:.2f}x |" for row in result["rows"]]
    said = f"{result['registered']} registered; JPEGs of {result['megapixels']} megapixels, {result['bytes'] / 1000:.0f} kB"
    return [said, "", "| stage | CPU ms | of Pillow's RGB decode |", "|---|---|---|", *rows]
