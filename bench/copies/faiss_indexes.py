"""Indexes of FAISS for local features, on the same descriptors as the own one: recall of the picture, time, bytes.

Each query feature, and its mirror, gets its nearest neighbours; those count as hits of the same weight in the same vote, so what differs is
which neighbours are found, in which time, from how many bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

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


@dataclass(frozen=True, slots=True)
class Task:
    """`descriptors`: n x 128; `places`: n records of `PLACE`; `asked`: (picture, its copy)."""

    descriptors: U8
    places: npt.NDArray[np.void]
    pictures: int
    asked: Sequence[tuple[int, Fingerprint]]


Neighbours = Callable[[Fingerprint], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]
"""Rows near a query's features and near their mirrors: n x k each, -1 for none."""


def compare(task: Task) -> list[dict[str, Any]]:
    faiss.omp_set_num_threads(1)
    rows = [_own(task)]
    lists = int(2 ** np.round(np.log2(4 * np.sqrt(len(task.descriptors)))))
    for name in (f"IVF{lists},SQ8", f"IVF{lists}_HNSW32,SQ8", f"IVF{lists},PQ32x4fs,RFlat", f"IVF{lists},PQ16x8", f"IVF{lists},RaBitQ"):
        rows.append(_measured(name, task, lambda name=name: _floats(name, task)))  # type: ignore[misc]
    rows.append(_measured(f"binary IVF{lists}, 64 bits", task, lambda: _binary_ivf(task, lists)))
    rows.append(_measured("binary hash, 20 bits, 1 flip", task, lambda: _binary_hash(task)))
    return rows


def _own(task: Task) -> dict[str, Any]:
    started = time.thread_time()
    index = Segment.of(task.pictures, encode(task.descriptors).codes, task.places)
    built = time.thread_time() - started
    return _row("**own segment**", built, index.nbytes, task, lambda print_: index.vote(Query.of(print_)))


def _measured(name: str, task: Task, build: Callable[[], tuple[Neighbours, int]]) -> dict[str, Any]:
    started = time.thread_time()
    neighbours, size = build()
    built = time.thread_time() - started
    # 8 bytes for where and in which picture each feature is
    return _row(name, built, size + 8 * len(task.descriptors), task, lambda print_: _vote(task, print_, *neighbours(print_)))


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
        "recall": round(float(np.mean(found)), 4),
        "search_ms": round(1e3 * float(np.mean(taken)), 2),
        "bytes_per_picture": round(size / task.pictures),
        "descriptors_per_s": round(len(task.descriptors) / max(built, 1e-9)),
    }


def _vote(task: Task, print_: Fingerprint, plain: npt.NDArray[np.int64], flipped: npt.NDArray[np.int64]) -> votes.Votes:
    rows = np.concatenate([plain, flipped], axis=1)
    features, ranks = np.nonzero(rows >= 0)
    hits = np.zeros(len(features), HIT)
    hits["place"], hits["feature"] = task.places[rows[features, ranks]], features
    hits["weight"], hits["flipped"] = _WEIGHT, ranks >= plain.shape[1]
    return votes.tally(hits, places(print_.points), task.pictures, 0.0)


def _floats(name: str, task: Task) -> tuple[Neighbours, int]:
    index = faiss.index_factory(DIMENSIONS, name)
    inverted: Any = faiss.try_extract_index_ivf(index)
    _quickly(inverted)
    index.train(_sample(task).astype(np.float32))
    for start in range(0, len(task.descriptors), 1 << 17):
        index.add(task.descriptors[start : start + (1 << 17)].astype(np.float32))
    inverted.nprobe = 8

    def neighbours(print_: Fingerprint) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        both = np.concatenate([print_.descriptors, print_.descriptors[:, MIRROR]]).astype(np.float32)
        rows = index.search(both, _NEIGHBOURS)[1] if len(both) else np.zeros((0, _NEIGHBOURS), np.int64)
        return rows[: len(rows) // 2], rows[len(rows) // 2 :]

    return neighbours, faiss.serialize_index(index).nbytes


def _sample(task: Task) -> U8:
    """What lists are learnt from."""
    rows = np.random.default_rng(0).choice(len(task.descriptors), min(_TRAINED, len(task.descriptors)), replace=False)
    return task.descriptors[rows]


def _quickly(inverted: Any) -> None:
    inverted.cp.niter, inverted.cp.min_points_per_centroid = 6, 5


def _bytes(codes: npt.NDArray[np.uint64]) -> U8:
    return codes.astype(">u8").view(np.uint8).reshape(-1, 8)


def _binary(index: Any, task: Task) -> tuple[Neighbours, int]:
    index.add(_bytes(encode(task.descriptors).codes))

    def neighbours(print_: Fingerprint) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        codes = encode(print_.descriptors).codes
        both = _bytes(np.concatenate([codes, codes ^ ANTISYMMETRIC]))
        rows = index.search(both, _NEIGHBOURS)[1] if len(both) else np.zeros((0, _NEIGHBOURS), np.int64)
        return rows[: len(rows) // 2], rows[len(rows) // 2 :]

    return neighbours, faiss.serialize_index_binary(index).nbytes


def _binary_ivf(task: Task, lists: int) -> tuple[Neighbours, int]:
    coarse = faiss.IndexBinaryFlat(64)
    index = faiss.IndexBinaryIVF(coarse, 64, lists)
    _quickly(index)
    index.train(_bytes(encode(_sample(task)).codes))
    index.nprobe = 8
    return _binary(index, task)


def _binary_hash(task: Task) -> tuple[Neighbours, int]:
    index = faiss.IndexBinaryHash(64, 20)
    index.nflip = 1
    return _binary(index, task)


def markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"Beside FAISS, the same descriptors, {_NEIGHBOURS} neighbours of each feature and of its mirror, 8 lists probed, the same vote:",
        "",
        "| index | recall@12 | search, ms | bytes per picture | descriptors a second, built |",
        "|---|---|---|---|---|",
        *(
            f"| {r['index']} | {r['recall']:.3f} | {r['search_ms']:.1f} | {r['bytes_per_picture']:,} | {r['descriptors_per_s']:,} |"
            for r in rows
        ),
    ]
