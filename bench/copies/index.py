"""What the index costs from a thousand to ten million pictures: time of a search, of adding and removing, bytes, files; FAISS beside it.

The pictures that are asked for are real: registered ones, attacked, and others that were never registered. Those that fill the index
are synthetic, made from real descriptors: up to 100 thousand go through `add` as fingerprints whose descriptors lie between two real
ones; above that a segment is filled with codes whose bits come from two real ones, at places drawn anew. Figures are processor time of
one thread.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench.copies import faiss_indexes, plots
from bench.copies.attacks import ATTACKS
from bench.copies.faiss_indexes import Task
from bench.copies.run import Run, spread_out
from bench.copies.sets import Picture
from bench.copies.work import spread, tell
from matcher.copies.codes import U64, encode
from matcher.copies.features import INDEXED, Fingerprint, fingerprint, registered
from matcher.copies.index import CANDIDATES, LEAST, CopyIndex
from matcher.copies.segment import Query, Segment, fineness, places
from matcher.copies.sift import DIMENSIONS
from matcher.copies.votes import PLACE
from matcher.pixels import U8

ADDED: Final = (1_000, 10_000, 100_000)
FILLED: Final = (1_000_000, 10_000_000)
COMPARED: Final = (1_000, 10_000, 100_000)
"""With FAISS."""
_QUICK: Final = ((200, 1_000), (20_000,), (300,))
_REAL: Final = 60
"""Pictures that are registered and attacked, unless the run says how many."""
_ATTACKS: Final = ("jpeg_10", "crop_25", "mirror_crop_50", "rotate_15", "overlay_30", "screenshot", "meme", "reposted")
_VISIBLE: Final = 20
_CHUNK: Final = 1 << 20
_PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Material:
    """`real`: registered pictures; `asked`: (which of them, its attacked copy); `unknown`: of pictures that are not registered;
    `sources`: of others, that synthetic ones are made from."""

    real: Sequence[Fingerprint]
    asked: Sequence[tuple[int, Fingerprint]]
    unknown: Sequence[Fingerprint]
    sources: Sequence[Fingerprint]

    @property
    def queries(self) -> list[Fingerprint]:
        return [*(print_ for _, print_ in self.asked), *self.unknown]


def run(run: Run) -> dict[str, Any]:
    material = _material(run)
    added, filled, compared = _QUICK if run.quick else (ADDED, FILLED, COMPARED)
    return {
        "real": len(material.real),
        "asked": len(material.asked),
        "unknown": len(material.unknown),
        "added": _through_add(material, added),
        "filled": [_filled(material, size) for size in filled],
        "faiss": faiss_indexes.compare(_task(material, size) for size in compared),
    }


def _material(run: Run) -> Material:
    pictures = spread_out(run.sets.registered, run.sample or _REAL)
    taken = spread(_taken, pictures, "registered pictures, attacked")
    others = spread(_unknown, run.sets.distractors, "pictures that are not registered")
    asked = [(number, copy) for number, (_, copies) in enumerate(taken) for copy in copies]
    return Material([print_ for print_, _ in taken], asked, others[::2], others[1::2])


def _taken(picture: Picture) -> tuple[Fingerprint, list[Fingerprint]]:
    rgb = picture.load()
    return registered(rgb), [fingerprint(ATTACKS[name](rgb, picture.name)) for name in _ATTACKS]


def _unknown(picture: Picture) -> Fingerprint:
    return fingerprint(picture.load())


class Synthetic:
    """Pictures made from the features of real ones."""

    def __init__(self, prints: Sequence[Fingerprint], seed: int = 0) -> None:
        self._descriptors = np.concatenate([p.descriptors[:INDEXED] for p in prints])
        self._points = np.concatenate([p.points[:INDEXED] for p in prints])
        self._codes = encode(self._descriptors).codes
        self._draw = np.random.default_rng(seed)
        self._print = next(p for p in prints if len(p.look))

    def descriptors(self, count: int) -> U8:
        """Between two real ones each, nearer to the first."""
        first, second = self._draw.integers(0, len(self._descriptors), (2, count))
        share = self._draw.uniform(0.5, 1, (count, 1)).astype(np.float32)
        mixed = share * self._descriptors[first] ** np.float32(2) + (1 - share) * self._descriptors[second] ** np.float32(2)
        return np.asarray(np.sqrt(mixed) / 12, np.uint8) * np.uint8(12)

    def picture(self) -> Fingerprint:
        points = self._points[self._draw.integers(0, len(self._points), INDEXED)]
        ordered = np.sort(self._descriptors[self._draw.integers(len(self._descriptors))])
        look = self._descriptors[self._draw.integers(len(self._descriptors))] // 2 + ordered // 2
        return Fingerprint(1200, 900, points, self.descriptors(INDEXED), self._print.thumbnail[:64], look)

    def codes(self, out: U64) -> None:
        """Each bit of one of two real ones, of the first three times as often."""
        for start in range(0, len(out), _CHUNK):
            part = out[start : start + _CHUNK]
            first, second = (self._codes[self._draw.integers(0, len(self._codes), len(part), np.uint32)] for _ in range(2))
            mask = self._draw.integers(0, 2**64 - 1, len(part), np.uint64) & self._draw.integers(0, 2**64 - 1, len(part), np.uint64)
            part[:] = first ^ ((first ^ second) & mask)

    def place(self, out: npt.NDArray[np.void], pictures: int) -> None:
        """Anywhere, each of any of so many pictures: `INDEXED` each in the mean."""
        where = places(self._points)
        for start in range(0, len(out), _CHUNK):
            part = out[start : start + _CHUNK]
            part[:] = where[self._draw.integers(0, len(where), len(part), np.uint32)]
            part["picture"] = self._draw.integers(0, pictures, len(part), np.uint32)


def filled(material: Material, size: int, folder: Path) -> Segment:
    """The real pictures, 0 and up, among synthetic ones; in files of the folder, mapped, as large segments are."""
    made = Synthetic(material.sources)
    real = Segment.build(material.real)
    codes: U64 = np.memmap(folder / "codes", np.uint64, "w+", shape=size * INDEXED)
    codes[: len(real)] = real.codes
    made.codes(codes[len(real) :])
    codes.sort()
    where = np.memmap(folder / "places", PLACE, "w+", shape=len(codes))
    made.place(where, size - len(material.real))
    where["picture"] += np.uint32(len(material.real))
    at = np.searchsorted(codes, real.codes)
    # equal codes lie side by side, in both
    at += np.arange(len(at)) - np.searchsorted(real.codes, real.codes)
    where[at] = real.places
    return Segment.sorted(size, codes, where)


def multiplied(base: Segment, times: int, folder: Path) -> Segment:
    """Each picture so many times: itself, and others whose codes agree with its codes in the leading bits that are cells. Inside of a cell
    nothing is sorted, which no search needs."""
    draw, entries = np.random.default_rng(1), len(base) * times
    codes: U64 = np.memmap(folder / "more codes", np.uint64, "w+", shape=entries)
    where = np.memmap(folder / "more places", PLACE, "w+", shape=entries)
    bits = fineness(entries)
    low, children = np.uint64((1 << (64 - bits)) - 1), np.arange(times, dtype=np.uint32)[None]
    for start in range(0, len(base), _CHUNK):
        part = slice(start, start + _CHUNK)
        shape, target = (len(base.codes[part]), times), slice(start * times, (start + _CHUNK) * times)
        one, other, third = (draw.integers(0, 2**64 - 1, shape, np.uint64) for _ in range(3))
        codes[target] = (base.codes[part, None] ^ np.where(children > 0, one & other & third & low, np.uint64(0))).ravel()
        where[target] = np.repeat(base.places[part], times)
        where["picture"][target] += np.tile(children * np.uint32(base.pictures), (shape[0], 1)).ravel()
    return Segment.sorted(base.pictures * times, codes, where)


def _filled(material: Material, size: int) -> dict[str, Any]:
    tell(f"an index filled with {size:,} pictures")
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        times = max(1, size // FILLED[0])
        index = filled(material, size // times, Path(folder))
        if times > 1:
            index = multiplied(index, times, Path(folder))
        return _searched(material, index) | {"filled_s": round(time.process_time() - begun, 1)}


def _searched(material: Material, index: Segment) -> dict[str, Any]:
    size = index.pictures
    queries = [Query.of(print_) for print_ in material.queries]
    groups = np.zeros(size, np.uint32)
    votes, taken = [], []
    for turn in range(2):
        for query in queries:
            started = time.thread_time()
            found = index.vote(query, groups=groups, among=size, least=LEAST)
            taken.append(time.thread_time() - started)
            if turn:
                votes.append(found)
    best = np.minimum(*np.array(taken).reshape(2, -1)) * 1e3
    asked = len(material.asked)
    first = [set(v.pictures[np.argsort(-v.votes)][:CANDIDATES].tolist()) for v in votes[:asked]]
    return {
        "pictures": size,
        "search_ms": round(float(best.mean()), 3),
        "search_p95_ms": round(float(np.quantile(best, 0.95)), 3),
        "encode_ms": round(_cpu_ms(lambda: [Query.of(p) for p in material.queries]) / len(queries), 3),
        "recall": round(float(np.mean([n in found for (n, _), found in zip(material.asked, first, strict=True)])), 4),
        "candidates": round(float(np.mean([len(v.pictures) for v in votes[asked:]])), 3),
        "bytes_per_picture": round((index.nbytes + groups.nbytes) / size),
    }


def _through_add(material: Material, sizes: Sequence[int]) -> list[dict[str, Any]]:
    made, rows = Synthetic(material.sources), []
    with tempfile.TemporaryDirectory() as folder:
        index: CopyIndex[int] = CopyIndex(Path(folder))
        for number, print_ in enumerate(material.real):
            index.add(number, print_)
        before = _resident()
        for size in sizes:
            tell(f"{size:,} pictures through add")
            begun, adding = len(index), 0.0
            for number in range(begun, size):
                print_ = made.picture()
                started = time.thread_time()
                index.add(number, print_)
                adding += time.thread_time() - started
            index.settle()
            row = {"pictures": size, "add_ms": round(1e3 * adding / max(1, size - begun), 3)}
            gc.collect()
            row |= {"rss_per_picture": round((_resident() - before) / (size - len(material.real)))}
            row |= {"bytes_per_picture": round(index.nbytes / size)}
            rows.append(row | _asked(index, material) | _visible(index, made, size) | _kept(index, Path(folder, "index")))
    return rows


def _asked(index: CopyIndex[int], material: Material) -> dict[str, Any]:
    found = [[c.id for c in index.candidates(print_)] for print_ in material.queries]
    hit = [number in ids for (number, _), ids in zip(material.asked, found, strict=False)]
    taken = min(_cpu_ms(lambda: [index.candidates(p) for p in material.queries]) for _ in range(2)) / len(found)
    unknown = found[len(hit) :]
    return {
        "segments": len(index._parts),
        "search_ms": round(taken, 3),
        "recall": round(float(np.mean(hit)), 4),
        "candidates": round(float(np.mean([len(ids) for ids in unknown])), 3),
    }


def _visible(index: CopyIndex[int], made: Synthetic, size: int) -> dict[str, Any]:
    """Until a search by somebody else would find it, or no longer; the longest, in real time."""
    added, removed = [], []
    for number in range(_VISIBLE):
        print_ = made.picture()
        started = time.perf_counter()
        index.add(size + number, print_)
        added.append(time.perf_counter() - started)
        assert index.candidates(print_)[0].id == size + number
        started = time.perf_counter()
        index.remove(size + number)
        removed.append(time.perf_counter() - started)
        assert size + number not in [c.id for c in index.candidates(print_)]
    return {"added_ms": round(1e3 * max(added), 1), "removed_ms": round(1e3 * max(removed), 1)}


def _kept(index: CopyIndex[int], path: Path) -> dict[str, Any]:
    started = time.perf_counter()
    index.save(path)
    saved = time.perf_counter()
    assert len(CopyIndex.load(path)) == len(index)
    loaded = time.perf_counter()
    return {"save_s": round(saved - started, 2), "load_s": round(loaded - saved, 2), "file_bytes": path.stat().st_size}


def _task(material: Material, size: int) -> Task:
    """The same pictures for every index: real ones, then synthetic ones."""
    made = Synthetic(material.sources)
    real = [p.descriptors[:INDEXED] for p in material.real]
    counts = [len(d) for d in real] + [INDEXED] * (size - len(real))
    begin = sum(map(len, real))
    descriptors, where = np.empty((sum(counts), DIMENSIONS), np.uint8), np.zeros(sum(counts), PLACE)
    made.place(where, size)
    descriptors[:begin], where[:begin] = np.concatenate(real), np.concatenate([places(p.points[:INDEXED]) for p in material.real])
    for start in range(begin, len(descriptors), _PIECE):
        descriptors[start : start + _PIECE] = made.descriptors(len(descriptors[start : start + _PIECE]))
    where["picture"] = np.repeat(np.arange(size, dtype=np.uint32), counts)
    return Task(descriptors, where, size, material.asked)


def _cpu_ms(work: Callable[[], object]) -> float:
    started = time.thread_time()
    work()
    return 1e3 * (time.thread_time() - started)


def _resident() -> int:
    """Bytes of memory that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) << 10


_COLUMNS: Final = (
    *("pictures", "segments", "search, ms", "recall@12", "candidates of an unknown", "add, ms", "visible, ms", "removed, ms"),
    *("bytes", "of memory taken", "save, s", "load, s"),
)


def plot(result: Mapping[str, Any], folder: Path) -> None:
    plots.sizes([*result["added"], *result["filled"]], {1_000_000: 1.0, 10_000_000: 2.0}, folder / "copies-index.svg")


def markdown(result: Mapping[str, Any]) -> list[str]:
    added = [
        f"| {r['pictures']:,} | {r['segments']} | {r['search_ms']:.2f} | {r['recall']:.3f} | {r['candidates']:.2f} | {r['add_ms']:.2f} | "
        f"{r['added_ms']:.0f} | {r['removed_ms']:.0f} | {r['bytes_per_picture']:,} | {r['rss_per_picture']:,} | "
        f"{r['save_s']:.1f} | {r['load_s']:.1f} |"
        for r in result["added"]
    ]
    large = [
        f"| {r['pictures']:,} | {r['encode_ms']:.2f} | {r['search_ms']:.2f} ({r['search_p95_ms']:.2f}) | {r['recall']:.3f} | "
        f"{r['candidates']:.2f} | {r['bytes_per_picture']:,} | {r['filled_s']:.0f} |"
        for r in result["filled"]
    ]
    return [
        f"{result['real']} real pictures, asked for by {result['asked']} attacked copies and {result['unknown']} others; the rest "
        "of the index is **synthetic, made from real descriptors**. CPU time of one thread, a query and its mirror in one.",
        "",
        "Through `add`:",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        "|---" * len(_COLUMNS) + "|",
        *added,
        "",
        "Filled with synthetic codes:",
        "",
        "| pictures | encode, ms | search, ms (95 %) | recall@12 | candidates of an unknown | bytes | filled in, s |",
        "|---|---|---|---|---|---|---|",
        *large,
        "",
        *faiss_indexes.markdown(result["faiss"]),
    ]
