"""Processor time of one core, and bytes: marking, with JPEG in and out, looking for a mark, and registrations.

A figure is the least of several runs, in thread time: what other processes do meanwhile hardly counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image

from bench.copies.sets import Picture
from bench.copies.work import spread
from bench.watermark.attacks import ATTACKS
from bench.watermark.methods import key_of
from bench.watermark.run import Run
from matcher.copies.verdict import judge
from matcher.pipeline import CRAWL_MODEL
from matcher.pixels import U8
from matcher.watermark.detect import detect_all
from matcher.watermark.embed import embed
from matcher.watermark.lmk import new_private_key, public_to_der, read_public_key, seal
from matcher.watermark.picture_file import mark_file
from matcher.watermark.query import Query
from matcher.watermark.registration import Registration
from matcher.watermark.small import reference

_MEGAPIXELS: Final = (1, 3, 12)
_REPEATS: Final = 4
_PICTURES: Final = 6
_KEYS: Final = 20
_SHARES: Final = (0.9, 0.8, 0.7)
"""Of the pixels: other registrations of the same picture, each aligned by itself."""
_QUERIES: Final = ("jpeg_50", "resize_50", "crop_25", "rotate_5")


def run(run: Run) -> dict[str, Any]:
    cv2.setNumThreads(1)
    pictures = run.few(_PICTURES, 2)
    account = public_to_der(new_private_key().public_key())
    sizes = spread(partial(_bytes, public_key=account), list(run.pictures), "registrations")
    return {
        "embed": [_embed(pictures, size) for size in (_MEGAPIXELS[:2] if run.quick else _MEGAPIXELS)],
        "detect": _detect(pictures),
        "registration": {"pictures": len(sizes), "mean": round(float(np.mean([s[0] for s in sizes]))), "most": max(s[0] for s in sizes)},
        "transactional": {"most": max(s[1] for s in sizes)},
    }


def _bytes(picture: Picture, public_key: bytes) -> tuple[int, int]:
    """Of sealed registrations: with a small picture, and transactional."""
    rgb, account = picture.load(), read_public_key(public_key)
    full, transactional = (embed(rgb, key=key_of(picture.name), transactional=t)[1] for t in (False, True))
    return len(seal(full, account)), len(seal(transactional, account))


def _embed(pictures: Sequence[Picture], megapixels: int) -> dict[str, float]:
    """Seconds per megapixel."""
    sized = [_of_size(picture.load(), megapixels) for picture in pictures]
    files = [_file(rgb) for rgb in sized]
    actual = float(np.mean([rgb.shape[0] * rgb.shape[1] for rgb in sized])) / 1e6
    array = float(np.mean([_least(partial(embed, rgb)) for rgb in sized]))
    jpeg = float(np.mean([_least(partial(mark_file, data)) for data in files]))
    return {"megapixels": megapixels, "array": round(array / actual, 4), "jpeg": round(jpeg / actual, 4)}


def _file(rgb: U8) -> bytes:
    file = BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=90)
    return file.getvalue()


def _of_size(rgb: U8, megapixels: float) -> U8:
    scale = (megapixels * 1e6 / (rgb.shape[0] * rgb.shape[1])) ** 0.5
    size = round(rgb.shape[1] * scale), round(rgb.shape[0] * scale)
    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BICUBIC))


def _detect(pictures: Sequence[Picture]) -> dict[str, float]:
    """Seconds: a query with its one candidate, and what each further candidate and each further key of the same picture add."""
    asked = [each for number in range(len(pictures)) for attack in _QUERIES for each in _asked(pictures, number, attack)]
    taken = [float("inf")] * len(asked)
    # in turn, as machines are slow for some seconds at a time
    for _ in range(_REPEATS):
        taken = [min(before, _seconds(what)) for before, (_, what) in zip(taken, asked, strict=True)]
    mean = {name: float(np.mean([t for t, (n, _) in zip(taken, asked, strict=True) if n == name])) for name, _ in asked}
    key = (mean.pop("keys") - mean.pop("one key")) / (_KEYS - 1)
    return {name: round(seconds, 4) for name, seconds in {**mean, "key": max(0.0, key)}.items()}


def _asked(pictures: Sequence[Picture], number: int, attack: str) -> list[tuple[str, Callable[[], object]]]:
    """What is measured of one query, by name."""
    picture = pictures[number]
    rgb = picture.load()
    marked, registration = embed(rgb, key=key_of(picture.name))
    image = ATTACKS[attack](marked, picture.name)
    query = Query.of(image)
    sized = [_of_size(rgb, share * rgb.shape[0] * rgb.shape[1] / 1e6) for share in _SHARES]
    keys = [replace(registration, key=key_of(f"{n} of {picture.name}")) for n in range(_KEYS)]
    asked: list[tuple[str, Callable[[], object]]] = [
        ("query", lambda: detect_all(Query.of(image), [registration])),
        *(("alike", _candidate(query, embed(same, key=key_of(f"{n}"))[1])) for n, same in enumerate(sized)),
        *(("other", _candidate(query, embed(p.load(), key=key_of(p.name))[1])) for p in pictures if p is not picture),
        ("one key", partial(detect_all, query, keys[:1])),
        ("keys", partial(detect_all, query, keys)),
    ]
    for _, what in asked:
        what()  # each small picture is decoded once, and the query's pyramid made once, which is not counted
    return asked


def _candidate(query: Query, registration: Registration) -> Callable[[], object]:
    """As a matcher looks at it: a verdict is there already."""
    verdict = judge(reference(registration).fingerprint, query.fingerprint, CRAWL_MODEL)
    seen = verdict.transform if verdict is not None and verdict.name == "copy" else None
    return partial(detect_all, query, [registration], seen=seen)


def _least(what: Callable[[], object]) -> float:
    return min(_seconds(what) for _ in range(_REPEATS))


def _seconds(what: Callable[[], object]) -> float:
    begun = time.thread_time()
    what()
    return time.thread_time() - begun


def markdown(result: Mapping[str, Any]) -> list[str]:
    embed_rows = [f"| {row['megapixels']} | {row['array']:.4f} | {row['jpeg']:.4f} |" for row in result["embed"]]
    found, size = result["detect"], result["registration"]
    return [
        "| megapixels | embed, s per MP | with JPEG in and out, s per MP |",
        "|---|---|---|",
        *embed_rows,
        "",
        "| detect | s |",
        "|---|---|",
        f"| a query and its candidate | {found['query']:.3f} |",
        f"| each further candidate that the query shows, too | {found['alike']:.3f} |",
        f"| each further candidate that it does not show | {found['other']:.3f} |",
        f"| each further key of the same picture | {found['key']:.4f} |",
        "",
        f"LMK files (sealed registrations) of {size['pictures']} pictures: {size['mean']:,} bytes on average, {size['most']:,} at most; "
        f"transactional {result['transactional']['most']:,} at most.",
    ]
