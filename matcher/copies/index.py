"""Which registered pictures may be in a query: a FAISS index of all their descriptors, and a vote.

Each query feature votes for the pictures of its nearest registered features; votes count together only where they agree on how much
larger and how far turned the query is (weak geometric consistency, Jégou et al. 2008). The index is a cache, rebuilt from fingerprints.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import faiss
import numpy as np
import numpy.typing as npt

from matcher.copies.features import Fingerprint, mirrored
from matcher.copies.geometry import Model
from matcher.copies.verdict import Verdict, judge
from matcher.pixels import F32, F64, U8

Id = TypeVar("Id", bound=Hashable)
Scalar = TypeVar("Scalar", bound=np.generic)

CANDIDATES: Final = 12
_NEIGHBOURS: Final = 10
_PROBES: Final = 8
_DIM: Final = 128
_FLAT_LIMIT: Final = 16_384
_GROWTH: Final = 8
_MIN_VOTES: Final = 3.0
_TURNS: Final = 12
_ZOOMS: Final = 12


@dataclass(frozen=True, slots=True)
class Candidate(Generic[Id]):
    """A registered picture that the index proposes; `votes` is only good for ordering."""

    id: Id
    votes: float
    mirrored: bool


@dataclass(frozen=True, slots=True)
class Found(Generic[Id]):
    id: Id
    verdict: Verdict


class CopyIndex(Generic[Id]):
    """Registered pictures by id. Thread-safe; what was added or removed counts at once.

    Up to some pictures every descriptor is compared (exact); above that an inverted file looks at the nearest lists only, which are learnt
    again each time the index has grown `_GROWTH` times.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._prints: dict[Id, Fingerprint] = {}
        self._slots: dict[Id, int] = {}
        self._ids: list[Id | None] = []
        self._owner: npt.NDArray[np.int32] = np.zeros(0, np.int32)
        self._shape: F32 = np.zeros((0, 2), np.float32)
        self._used = 0
        self._live = 0
        self._limit = _FLAT_LIMIT
        self._faiss = _flat()

    def __len__(self) -> int:
        return len(self._prints)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._prints

    def fingerprint(self, id_: Id) -> Fingerprint:
        """Raises KeyError."""
        return self._prints[id_]

    def items(self) -> list[tuple[Id, Fingerprint]]:
        with self._lock:
            return list(self._prints.items())

    def add(self, id_: Id, print_: Fingerprint) -> None:
        """Registers a picture; one with the same id is replaced."""
        with self._lock:
            self.remove(id_)
            self._prints[id_] = print_
            self._insert(id_, print_)
            if self._live > self._limit or self._used > 2 * self._live + _FLAT_LIMIT:
                self._rebuild()

    def remove(self, id_: Id) -> bool:
        """Whether there was one."""
        with self._lock:
            if self._prints.pop(id_, None) is None:
                return False
            slot = self._slots.pop(id_)
            self._ids[slot] = None
            rows = np.flatnonzero(self._owner[: self._used] == slot)
            if len(rows):
                self._faiss.remove_ids(faiss.IDSelectorRange(int(rows[0]), int(rows[-1]) + 1))
            self._live -= len(rows)
            return True

    def candidates(self, query: Fingerprint, limit: int = CANDIDATES) -> list[Candidate[Id]]:
        """At most `limit` different pictures, the most promising first; the query's mirror is looked up with it."""
        with self._lock:
            if not self._live or not len(query.points):
                return []
            both = (query, mirrored(query))
            found = [Candidate(id_, votes, bool(flip)) for flip, seen in enumerate(both) for id_, votes in self._vote(seen)]
        best: dict[Id, Candidate[Id]] = {}
        for candidate in sorted(found, key=lambda c: -c.votes):
            best.setdefault(candidate.id, candidate)
        return list(best.values())[:limit]

    def search(self, query: Fingerprint, model: Model = "scale", *, limit: int = CANDIDATES) -> list[Found[Id]]:
        """Candidates that geometry confirms, copies first, then by score."""
        total = max(1, len(self))
        found = []
        for candidate in self.candidates(query, limit):
            print_ = self._prints.get(candidate.id)
            verdict = judge(print_, query, model, total) if print_ else None
            if verdict is not None:
                found.append(Found(candidate.id, verdict))
        return sorted(found, key=lambda f: (f.verdict.name != "copy", -f.verdict.score))

    def _vote(self, query: Fingerprint) -> Iterator[tuple[Id, float]]:
        distances, rows = self._faiss.search(query.descriptors.astype(np.float32), min(_NEIGHBOURS, self._live))
        features, ranks = np.nonzero(rows >= 0)
        rows, distances = rows[features, ranks], _weights(distances)[features, ranks]
        slots = self._owner[rows]
        # one feature votes once for a picture, by its best correspondence there
        _, first = np.unique(features * np.int64(len(self._ids)) + slots, return_index=True)
        rows, distances, slots, features = rows[first], distances[first], slots[first], features[first]
        votes = _consistent(slots, distances, query.points[features], self._shape[rows], len(self._ids))
        for slot in np.argsort(-votes, kind="stable")[: 2 * CANDIDATES]:
            id_ = self._ids[slot]
            if id_ is not None and votes[slot] >= _MIN_VOTES * 0.1:
                yield id_, float(votes[slot])

    def _insert(self, id_: Id, print_: Fingerprint) -> None:
        slot, count = len(self._ids), len(print_.points)
        self._ids.append(id_)
        self._slots[id_] = slot
        end = self._used + count
        self._owner = _room(self._owner, end)
        self._shape = _room(self._shape, end)
        self._owner[self._used : end] = slot
        self._shape[self._used : end] = print_.points[:, 2:]
        if count:
            self._faiss.add_with_ids(print_.descriptors.astype(np.float32), np.arange(self._used, end, dtype=np.int64))
        self._used, self._live = end, self._live + count

    def _rebuild(self) -> None:
        """Learns the lists anew for what is registered now, and leaves no gap of removed pictures."""
        prints = list(self._prints.items())
        self._faiss = _flat() if self._live <= _FLAT_LIMIT else _inverted([p.descriptors for _, p in prints])
        self._limit = max(_FLAT_LIMIT, _GROWTH * self._live if self._live > _FLAT_LIMIT else _FLAT_LIMIT)
        self._slots, self._ids, self._used, self._live = {}, [], 0, 0
        for id_, print_ in prints:
            self._insert(id_, print_)


def _room(array: npt.NDArray[Scalar], size: int) -> npt.NDArray[Scalar]:
    if size <= len(array):
        return array
    return np.concatenate([array, np.zeros((max(size, 2 * len(array)) - len(array), *array.shape[1:]), array.dtype)])


def _weights(distances: F32) -> F32:
    """How much nearer each neighbour is than the last one of its row, 0..1: a feature that is near to everything says nothing."""
    last = np.where(np.isfinite(distances) & (distances < 1e30), distances, 0).max(axis=1, keepdims=True)
    return np.asarray((1 - distances / np.maximum(last, 1.0)).clip(0.02, 1.0), np.float32)


def _consistent(slots: npt.NDArray[np.int32], weights: F32, query: F32, registered: F32, count: int) -> F64:
    """Votes per slot: the strongest bin of (turn, zoom), bins overlapping by half."""
    turn = ((query[:, 3] - registered[:, 1]) % 360.0) * (_TURNS / 360.0)
    zoom = (np.log2(np.maximum(query[:, 2], 0.1) / np.maximum(registered[:, 0], 0.1)) + 3).clip(0, 5.99) * (_ZOOMS / 6)
    best = np.zeros(count)
    for dt in (0.0, 0.5):
        for dz in (0.0, 0.5):
            bins = (np.floor(turn + dt).astype(int) % _TURNS) * (_ZOOMS + 1) + np.floor(zoom + dz).astype(int)
            key = slots.astype(np.int64) * (_TURNS * (_ZOOMS + 1)) + bins
            named, where = np.unique(key, return_inverse=True)
            sums = np.bincount(where, weights)
            np.maximum.at(best, named // (_TURNS * (_ZOOMS + 1)), sums)
    return best


def _flat() -> faiss.Index:
    return faiss.IndexIDMap2(faiss.IndexScalarQuantizer(_DIM, faiss.ScalarQuantizer.QT_8bit_direct, faiss.METRIC_L2))


def _inverted(descriptors: list[U8]) -> faiss.Index:
    """An empty inverted file whose lists suit these descriptors and several times as many."""
    total = sum(len(d) for d in descriptors)
    lists = int(2 ** np.round(np.log2(4 * np.sqrt(total))))
    sample = np.concatenate(descriptors)
    if len(sample) > 40 * lists:
        sample = sample[np.random.default_rng(0).choice(len(sample), 40 * lists, replace=False)]
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatL2(_DIM), _DIM, lists, faiss.ScalarQuantizer.QT_8bit_direct, faiss.METRIC_L2, False
    )
    index.cp.niter, index.cp.min_points_per_centroid = 8, 5
    index.train(sample.astype(np.float32))
    index.nprobe = _PROBES
    return index
