"""Indexes of FAISS for local features, on the same descriptors as the own one: recall of the picture, time, bytes.

Each query feature, and its mirror, gets its nearest neighbours; those count as hits of the same weight in the same vote, so what differs is
which neighbours are found, in which time, from how many bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from bench.copies.work import tell
from matcher.copies import votes
from matcher.copies.codes import ANTISYMMETRIC, encode
from matcher.copies.features import MIRROR, Fingerprint
from matcher.copies.index import CANDIDATES
from matcher.copies.segment import Query, Segment, places
from matcher.copies.sift import DIMENSIONS
from matcher.copies.votes import HIT
from matcher.pixels import U8

_NEIGHBOURS: Final = 10
_WEIGHT: Final = 1024
_ASKED: Final = 60
_TRAINED: Final = 60_000
_LISTS: Final = 4096
"""More would take minutes to be learnt, each time."""
_PATIENCE: Final = 120.0
"""Seconds that adding may take, at the speed that it had among fewer: at best it is as fast."""
_CHUNK: Final = 1 << 17


@dataclass(frozen=True, slots=True)
class Task:
    """`descriptors`: n x 128; `places`: n records of `PLACE`; `asked`: (picture, its copy)."""

    descriptors: U8
    places: npt.NDArray[np.void]
    pictures: int
    asked: Sequence[tuple[int, Fingerprint]]


Neighbours = Callable[[Fingerprint], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
"""Rows near a query's features and near their mirrors: n x k each, -1 for none."""


class Built(NamedTuple):
    """`size`: bytes; `seconds`: processor time to add everything, once the lists are learnt."""

    neighbours: Neighbours
    size: int
    seconds: float


def compare(tasks: Iterable[Task]) -> list[dict[str, Any]]:
    """Each task has more descriptors than the one before; what would take too long to build is only named."""
    faiss.omp_set_num_threads(1)
    rows: list[dict[str, Any]] = []
    rates: dict[str, float] = {}
    for task in tasks:
        rows.append(_own(task))
        for name, build in _builders(task).items():
            if (least := len(task.descriptors) / rates.get(name, np.inf)) > _PATIENCE:
                rows.append({"index": name, "pictures": task.pictures, "at_least_s": round(least)})
                continue
            tell(f"FAISS, {task.pictures:,} pictures: {name}")
            built = build()
            rates[name] = len(task.descriptors) / max(built.seconds, 1e-9)
            # 8 bytes for where and in which picture each feature is
            size = built.size + 8 * len(task.descriptors)
            rows.append(_row(name, built.seconds, size, task, partial(_asked, task, built.neighbours)))
    return rows


def _builders(task: Task) -> dict[str, Callable[[], Built]]:
    lists = min(_LISTS, int(2 ** np.round(np.log2(4 * np.sqrt(len(task.descriptors))))))
    # np: no polysemous training, which takes most of the time and serves a search that is not asked for here
    names = (f"IVF{lists},SQ8", f"IVF{lists}_HNSW32,SQ8", f"IVF{lists},PQ32x4fs,RFlat", f"IVF{lists},PQ16x8np", f"IVF{lists},RaBitQ")
    found: dict[str, Callable[[], Built]] = {name.replace(str(lists), "", 1): partial(_floats, name, task) for name in names}
    found["binary IVF, 64 bits"] = partial(_binary_ivf, task, lists)
    found["binary hash, 20 bits, 1 flip"] = partial(_binary_hash, task)
    return found


def _own(task: Task) -> dict[str, Any]:
    started = time.thread_time()
    index = Segment.of(task.pictures, encode(task.descriptors).codes, task.places)
    built = time.thread_time() - started
    return _row("**own segment**", built, index.nbytes, task, lambda print_: index.vote(Query.of(print_)))


def _row(name: str, built: float, size: int, task: Task, search: Callable[[Fingerprint], votes.Votes]) -> dict[str, Any]:
    step = max(1, len(task.asked) // _ASKED)
    found, taken = [], []
    for number, print_ in task.asked[::step]:
        started = time.thread_time()
        result = search(print_)
        taken.append(time.thread_time() - started)
        found.append(number in result.pictures[np.argsort(-result.votes)][:CANDIDATES])
    return {
        "index": name,
        "pictures": task.pictures,
        "recall": round(float(np.mean(found)), 4),
        "search_ms": round(1e3 * float(np.mean(taken)), 2),
        "bytes_per_picture": round(size / task.pictures),
        "descriptors_per_s": round(len(task.descriptors) / max(built, 1e-9)),
    }


def _asked(task: Task, neighbours: Neighbours, print_: Fingerprint) -> votes.Votes:
    plain, flipped = neighbours(print_)
    rows = np.concatenate([plain, flipped], axis=1)
    features, ranks = np.nonzero(rows >= 0)
    hits = np.zeros(len(features), HIT)
    hits["place"], hits["feature"] = task.places[rows[features, ranks]], features
    hits["weight"], hits["flipped"] = _WEIGHT, ranks >= plain.shape[1]
    return votes.tally(hits, places(print_.points), task.pictures, 0.0)


def _floats(name: str, task: Task) -> Built:
    index = faiss.index_factory(DIMENSIONS, name)
    inverted: Any = faiss.try_extract_index_ivf(index)
    _quickly(inverted)
    index.train(_sample(task).astype(np.float32))
    started = time.thread_time()
    for start in range(0, len(task.descriptors), _CHUNK):
        index.add(task.descriptors[start : start + _CHUNK].astype(np.float32))
    seconds = time.thread_time() - started
    inverted.nprobe = 8

    def neighbours(print_: Fingerprint) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        both = np.concatenate([print_.descriptors, print_.descriptors[:, MIRROR]]).astype(np.float32)
        rows = index.search(both, _NEIGHBOURS)[1] if len(both) else np.zeros((0, _NEIGHBOURS), np.int64)
        return rows[: len(rows) // 2], rows[len(rows) // 2 :]

    return Built(neighbours, faiss.serialize_index(index).nbytes, seconds)


def _sample(task: Task) -> U8:
    """What lists are learnt from."""
    rows = np.random.default_rng(0).choice(len(task.descriptors), min(_TRAINED, len(task.descriptors)), replace=False)
    return task.descriptors[rows]


def _quickly(inverted: Any) -> None:
    inverted.cp.niter, inverted.cp.min_points_per_centroid = 6, 5


def _bytes(codes: npt.NDArray[np.uint64]) -> U8:
    return codes.astype(">u8").view(np.uint8).reshape(-1, 8)


def _binary(index: Any, task: Task) -> Built:
    started = time.thread_time()
    for start in range(0, len(task.descriptors), _CHUNK):
        index.add(_bytes(encode(task.descriptors[start : start + _CHUNK]).codes))
    seconds = time.thread_time() - started

    def neighbours(print_: Fingerprint) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        codes = encode(print_.descriptors).codes
        both = _bytes(np.concatenate([codes, codes ^ ANTISYMMETRIC]))
        rows = index.search(both, _NEIGHBOURS)[1] if len(both) else np.zeros((0, _NEIGHBOURS), np.int64)
        return rows[: len(rows) // 2], rows[len(rows) // 2 :]

    return Built(neighbours, faiss.serialize_index_binary(index).nbytes, seconds)


def _binary_ivf(task: Task, lists: int) -> Built:
    coarse = faiss.IndexBinaryFlat(64)
    index = faiss.IndexBinaryIVF(coarse, 64, lists)
    _quickly(index)
    index.train(_bytes(encode(_sample(task)).codes))
    index.nprobe = 8
    return _binary(index, task)


def _binary_hash(task: Task) -> Built:
    index = faiss.IndexBinaryHash(64, 20)
    index.nflip = 1
    return _binary(index, task)


def markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"Beside FAISS, the same descriptors, {_NEIGHBOURS} neighbours of each feature and of its mirror, 8 lists probed of 4 times the "
        f"root of the number of descriptors ({_LISTS:,} at most), the same vote. What takes {_PATIENCE:.0f} s to add is not searched:",
        "",
        "| pictures | index | recall@12 | search, ms | bytes per picture | descriptors added a second |",
        "|---|---|---|---|---|---|",
        *map(_line, rows),
    ]


def _line(row: Mapping[str, Any]) -> str:
    if "at_least_s" in row:
        return f"| {row['pictures']:,} | {row['index']} | | | | adding takes at least {row['at_least_s']:,} s |"
    return (
        f"| {row['pictures']:,} | {row['index']} | {row['recall']:.3f} | {row['search_ms']:.1f} | {row['bytes_per_picture']:,} | "
        f"{row['descriptors_per_s']:,} |"
    )
