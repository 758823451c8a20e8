"""Are the p-values true? Wrong keys on unmarked originals and on other customers' copies, against what the p-value says.

All pictures are cut to one shape, so that all lie on one grid: then each key is drawn once, as detection draws it, for all of them, and all
statistics of some keys and some pictures are one product of two matrices. Originals and marked copies of a picture are tried with different
keys, so that no two trials share key and content. Beside it some thousand keys go through `detect_all`, whole.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np

from bench.copies.queries import stem
from bench.copies.sets import Picture
from bench.copies.work import followed, spread
from bench.watermark import doubts, plots, wrong_keys
from bench.watermark.attacks import ATTACKS
from bench.watermark.keeping import kept, version
from bench.watermark.methods import ZERO_BIT, key_of, methods
from bench.watermark.run import Run
from bench.watermark.wrong_keys import sigma, statistics, tails, unit
from matcher.pixels import F32, U8, gray
from matcher.watermark.align import align
from matcher.watermark.detect import MAX_P, detect_all
from matcher.watermark.embed import embed
from matcher.watermark.keys import grid
from matcher.watermark.query import Query
from matcher.watermark.residual import spectrum

THRESHOLDS: Final = (0.5, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
_TRIALS: Final = 1_200_000
_QUICK_TRIALS: Final = 12_000
_BATCH: Final = 64
_SHAPE: Final = (1200, 800)
"""Width and height that all pictures are cut to."""
_ATTACKS: Final = ("jpeg_50", "resize_50", "crop_50", "gray", "page", "rotate_5", "noise_5", "posted_twice")
_PAYLOADS: Final = 4_000
_QUICK_PAYLOADS: Final = 200
_KINDS: Final = {"originals": False, "copies with another key": True}
_WHOLE: Final = 120
"""Queries that go through `detect_all`, with `_WHOLE_KEYS` keys each."""
_WHOLE_KEYS: Final = 250


class _Query(NamedTuple):
    picture: Picture
    number: int
    marked: bool


def run(run: Run) -> dict[str, Any]:
    """Each of the four counts is kept: a run that was cut goes on behind the last that was whole."""
    cv2.setNumThreads(1)
    observed = lru_cache(2)(partial(_observed, run))
    count = _QUICK_PAYLOADS if run.quick else _PAYLOADS
    size = grid(*_SHAPE)
    counts: Mapping[str, Callable[[], dict[str, Any]]] = {
        "keys": lambda: _many_keys({name: observed(marked) for name, marked in _KINDS.items()}, _QUICK_TRIALS if run.quick else _TRIALS),
        "payloads": lambda: doubts.wrong_keys(observed(False), size, count),
        "drowned": lambda: doubts.drowned(observed(True), size, count // 4),
        "whole": lambda: _whole(run),
    }
    names = hashlib.sha256(repr((run.quick, [stem(picture) for picture in run.pictures])).encode()).hexdigest()[:12]
    code = version([Path(str(module.__file__)) for module in (sys.modules[__name__], doubts, wrong_keys)], methods()[ZERO_BIT].version)
    return {name: kept(run.cache / f"alarms-{code}" / f"{name}-{names}.json", make) for name, make in counts.items()}


def _observed(run: Run, marked: bool) -> dict[str, F32]:
    """What detection correlates with keys, by the picture's name."""
    queries = [_Query(picture, number, marked) for number, picture in enumerate(run.pictures)]
    found = spread(_spectrum, queries, "marked copies" if marked else "originals")
    return {query.picture.name: x for query, x in zip(queries, found, strict=True) if x is not None}


def _many_keys(kinds: Mapping[str, Mapping[str, F32]], wanted: int) -> dict[str, Any]:
    """Half of the trials on originals, half on copies with another key."""
    p = {kind: _p_values(kind, np.stack(list(found.values())), wanted // len(kinds)) for kind, found in kinds.items()}
    everything = np.concatenate(list(p.values()))
    return {
        "pictures": {kind: len(found) for kind, found in kinds.items()},
        "trials": len(everything),
        "rows": [{"p": threshold, **sigma(everything, threshold)} for threshold in THRESHOLDS],
        "alarms": int((everything <= MAX_P).sum()),
        "least_p": float(everything.min()),
    }


def _p_values(kind: str, spectra: F32, wanted: int) -> Any:
    """Of at least `wanted` pairs of a key and a picture."""
    batches = -(-wanted // (len(spectra) * _BATCH))
    made = (statistics(spectra, grid(*_SHAPE), kind, range(n * _BATCH, (n + 1) * _BATCH)) for n in range(batches))
    return tails(np.concatenate([z.ravel() for z in followed(made, batches, f"wrong keys, {kind}")]))


def _spectrum(query: _Query) -> F32 | None:
    """What detection correlates with the key, of length 1; None where the query is not aligned."""
    cv2.setNumThreads(1)
    rgb = _shaped(query.picture.load())
    marked, registration = embed(rgb, key=key_of(f"another of {query.picture.name}"))
    attacked = ATTACKS[_ATTACKS[query.number % len(_ATTACKS)]](marked if query.marked else rgb, query.picture.name)
    aligned = align(gray(attacked), registration)
    return unit(spectrum(aligned)) if aligned is not None else None


def _shaped(rgb: U8) -> U8:
    """The middle, of one shape."""
    width, height = _SHAPE
    scale = max(width / rgb.shape[1], height / rgb.shape[0])
    made = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    y, x = (made.shape[0] - height) // 2, (made.shape[1] - width) // 2
    return np.ascontiguousarray(made[y : y + height, x : x + width], np.uint8)


def _whole(run: Run) -> dict[str, Any]:
    """All that detection does, with many keys for each picture, half of them with payloads: p counts them all, so none may be small."""
    queries = [_Query(picture, number, bool(number % 2)) for number, picture in enumerate(run.few(_WHOLE, 4))]
    keys = 20 if run.quick else _WHOLE_KEYS
    found = spread(partial(_alarms, keys=keys), queries, "wrong keys through detect_all")
    return {
        "queries": len(queries),
        "keys": keys,
        "pairs": len(queries) * keys,
        "aligned": sum(aligned for aligned, _ in found),
        "alarms": sum(least <= MAX_P for _, least in found),
        "least_p": min(least for _, least in found),
        "below": {str(level): sum(least <= level for _, least in found) for level in (0.5, 0.1, 0.01)},
    }


def _alarms(query: _Query, keys: int) -> tuple[bool, float]:
    """Whether the picture was found, and the least p-value of all keys."""
    cv2.setNumThreads(1)
    rgb, name = query.picture.load(), query.picture.name
    marked, registration = embed(rgb, key=key_of(f"another of {name}"))
    attacked = ATTACKS[_ATTACKS[query.number // 2 % len(_ATTACKS)]](marked if query.marked else rgb, name)
    wrong = [replace(registration, key=key_of(f"wrong {n} of {name}"), payload=bool(n % 2)) for n in range(keys)]
    found = detect_all(Query.of(attacked), wrong)
    return found[0].transform is not None, min(detection.p_value for detection in found)


def plot(result: Mapping[str, Any], folder: Path) -> None:
    rows, trials = result["keys"]["rows"], result["keys"]["trials"]
    plots.alarms([row["p"] for row in rows], [row["counted"] / trials for row in rows], folder / "watermark-alarms.svg")


def markdown(result: Mapping[str, Any]) -> list[str]:
    keys, whole = result["keys"], result["whole"]
    rows = [f"| {row['p']:g} | {row['expected']:,.0f} | {row['counted']:,} | {row['sigma']:+.2f} |" for row in keys["rows"]]
    pictures = " and ".join(f"{count} {kind}" for kind, count in keys["pictures"].items())
    return [
        f"{keys['trials']:,} pairs of a wrong key and a query, {pictures}, attacked; alarms (p <= 1e-9): {keys['alarms']}; "
        f"the least p-value was {keys['least_p']:.1e}.",
        "",
        "| p at most | expected | counted | sigma |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Through `detect_all`: {whole['queries']} queries ({whole['aligned']} aligned) with {whole['keys']:,} wrong keys each, "
        f"{whole['pairs']:,} pairs, all counted in p: alarms {whole['alarms']}, least p-value {whole['least_p']:.2g}; {_below(whole)}.",
        "",
        *_payloads(result["payloads"], result["drowned"]),
    ]


def _payloads(wrong: Mapping[str, Any], drowned: Mapping[str, Any]) -> list[str]:
    below = ", ".join(f"{share:.3f} at p <= {level}" for level, share in wrong["below"].items())
    rows = [f"| {row['doubt']:g} | {row['said']:,} | {row['wrong']} | {row['doubt'] * row['trials']:.3g} |" for row in drowned["rows"]]
    return [
        f"Payloads of {wrong['trials']:,} wrong keys, the likeliest of 2^24 each: {below}; alarms {wrong['alarms']}.",
        "",
        f"Right keys whose mark is nearly drowned, {drowned['trials']:,} trials; a wrong number is the likeliest in {drowned['wrong']:,}:",
        "",
        "| doubt at most | payloads said | wrong ones | allowed |",
        "|---|---|---|---|",
        *rows,
    ]


def _below(whole: Mapping[str, Any]) -> str:
    """How many queries had a p-value so small, of so many expected at most."""
    return ", ".join(f"{n} at p <= {level} ({float(level) * whole['queries']:.0f} expected)" for level, n in whole["below"].items())
