"""Pictures by their look (`matcher.copies.look`): which registered ones look like a query, or like its mirror.

An inverted file of FAISS whose cells are fixed (learnt once, shipped with the package), so that it never has to be trained or built again:
what was added or removed counts at once, and a few pictures are searched exactly. Looks are kept in 16 levels, 64 bytes for each picture.
Where a picture lies is not kept, which would take 40 more: those removed are left out of answers, until many go in one pass over all.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from matcher.copies.features import MIRROR
from matcher.copies.look import NEAR
from matcher.pixels import F32, U8

CELLS: Final = Path(__file__).with_name("look_cells.npz")
_DIM: Final = 128
_LEVEL: Final = 12
_LEVELS: Final = 16
_COMPARED: Final = 4096
"""How many looks a search compares with, about; all of them while there are no more."""
_PROBES: Final = 4
_GONE: Final = 256
"""Removed pictures that are still there, at most."""
_MAGIC: Final = b"FGL2"
_NUMBER_BITS: Final = 40
_NUMBERS: Final = 1 << _NUMBER_BITS
GROUPS: Final = 1 << (63 - _NUMBER_BITS)

Keys = npt.NDArray[np.int64]


class LooksInvalid(ValueError):
    """The bytes are no looks of a version that this program reads, or damaged."""


@dataclass(frozen=True, slots=True)
class Alike:
    """A picture that looks like the query, or (`mirrored`) like its mirror. `distance`: Euclidean, 0 to 724, to its look in 16 levels:
    some 40 for equal ones."""

    number: int
    group: int
    distance: float
    mirrored: bool


class LookIndex:
    """Looks by number (below 2^40), each in a group (below 2^23). Thread-safe; what was added or removed counts at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faiss: Any = _empty()  # FAISS' own types leave out half of it
        self._gone: set[int] = set()

    def __len__(self) -> int:
        """With a few that were removed."""
        return int(self._faiss.ntotal)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, about: look and key of each picture, and the cells' middles."""
        return len(self) * (_DIM // 2 + 8) + int(self._faiss.nlist) * _DIM * 4

    def add(self, number: int, look: U8, group: int = 0) -> None:
        """No other with this number and group is there. Raises ValueError where `look` is no look, or number or group out of range."""
        self.add_all(np.array([number]), look[None], np.array([group]))

    def add_all(self, numbers: Keys, looks: U8, groups: Keys) -> None:
        """n numbers, each once; n x 128 looks; n groups. Raises ValueError."""
        keys = _keys(numbers, groups)
        if looks.shape != (len(keys), _DIM) or len(np.unique(keys)) != len(keys):
            raise ValueError(f"{len(keys)} different numbers need as many looks of {_DIM} values; these have the shape {looks.shape}")
        with self._lock:
            if not self._gone.isdisjoint(keys.tolist()):
                self._forget()
            self._faiss.add_with_ids(looks.astype(np.float32), keys)

    def remove(self, number: int, group: int = 0) -> None:
        """Nothing where there is none."""
        key = _keys(np.array([number]), np.array([group]))
        with self._lock:
            self._gone.update(key.tolist())
            if len(self._gone) > _GONE:
                self._forget()

    def nearest(self, look: U8, limit: int, group: int | None = None, within: float = NEAR) -> list[Alike]:
        """At most `limit` pictures of each group (or of `group`) not farther than `within`, of the look or its mirror, nearest first: no
        group's pictures displace another's."""
        if not len(look) or limit < 1:
            return []
        both = np.stack([look, look[MIRROR]]).astype(np.float32)
        found = self._around(both, within) if group is None else self._closest(both, limit, group, within)
        return _limited(found, limit)

    def _closest(self, both: F32, limit: int, group: int, within: float) -> list[Alike]:
        chosen = faiss.IDSelectorRange(group << _NUMBER_BITS, (group + 1) << _NUMBER_BITS)
        with self._lock:
            # those that are gone displace nobody
            wanted = min(limit + len(self._gone), max(1, len(self)))
            squares, keys = self._faiss.search(both, wanted, params=self._how(chosen))
            near = (squares <= within * within) & self._there(keys)
        flips = np.broadcast_to(np.array([[False], [True]]), keys.shape)
        return _ranked(keys[near], squares[near], flips[near])

    def _around(self, both: F32, within: float) -> list[Alike]:
        with self._lock:
            starts, squares, keys = self._faiss.range_search(both, within * within, params=self._how(None))
            there = self._there(keys)
        return _ranked(keys[there], squares[there], (np.arange(len(keys)) >= starts[1])[there])

    def to_bytes(self) -> bytes:
        """Versioned, with a checksum."""
        with self._lock:
            self._forget()
            body = faiss.serialize_index(self._faiss).tobytes()
        return _MAGIC + zlib.crc32(body).to_bytes(4, "big") + body

    @classmethod
    def from_bytes(cls, data: bytes) -> LookIndex:
        """Raises LooksInvalid."""
        if data[:4] != _MAGIC:
            raise LooksInvalid("not an index of looks, or one of another version")
        if zlib.crc32(data[8:]).to_bytes(4, "big") != data[4:8]:
            raise LooksInvalid("the checksum of the index of looks does not fit")
        index = cls()
        index._faiss = faiss.deserialize_index(np.frombuffer(data, np.uint8, offset=8))
        return index

    def _there(self, keys: Keys) -> npt.NDArray[np.bool_]:
        return np.isin(keys, list(self._gone), invert=True)

    def _forget(self) -> None:
        """What is gone, in one pass."""
        if self._gone:
            self._faiss.remove_ids(faiss.IDSelectorBatch(np.array(list(self._gone), np.int64)))
            self._gone = set()

    def _how(self, selector: faiss.IDSelector | None) -> Any:
        lists = self._faiss.nlist
        probes = min(lists, max(_PROBES, -(-lists * _COMPARED // max(1, len(self)))))
        parameters: Any = faiss.SearchParametersIVF
        return parameters(sel=selector, nprobe=probes)


@lru_cache(1)
def _cells() -> F32:
    with np.load(CELLS) as stored:
        return np.asarray(stored["cells"], np.float32)


def _empty() -> faiss.IndexIVFScalarQuantizer:
    middles = faiss.IndexFlatL2(_DIM)
    middles.add(_cells())
    index = faiss.IndexIVFScalarQuantizer(middles, _DIM, middles.ntotal, faiss.ScalarQuantizer.QT_4bit_uniform, faiss.METRIC_L2, False)
    # its range is set by the smallest and the largest value it sees: level n is around n * _LEVEL + 0.5, and no integer on an edge
    edges = np.array([0, _LEVELS - 1], np.float32) * _LEVEL - _LEVEL / 2 + 0.5
    index.train(np.repeat(edges[:, None], _DIM, axis=1))
    return index


def _keys(numbers: Keys, groups: Keys) -> Keys:
    if len(numbers) and (min(numbers.min(), groups.min()) < 0 or numbers.max() >= _NUMBERS or groups.max() >= GROUPS):
        raise ValueError(f"numbers are below 2^{_NUMBER_BITS} and groups below {GROUPS}; not {numbers}, {groups}")
    return np.asarray(groups, np.int64) << _NUMBER_BITS | numbers


def _ranked(keys: Keys, squares: F32, flips: npt.NDArray[np.bool_]) -> list[Alike]:
    """Each picture once, by the nearer of its two distances; FAISS fills up with the key -1."""
    best: dict[int, Alike] = {}
    for at in np.lexsort((flips, squares)):
        key = int(keys[at])
        if key >= 0 and key not in best:
            best[key] = Alike(key % _NUMBERS, key >> _NUMBER_BITS, max(float(squares[at]), 0.0) ** 0.5, bool(flips[at]))
    return list(best.values())


def _limited(found: Sequence[Alike], limit: int) -> list[Alike]:
    counts: dict[int, int] = {}
    kept = []
    for alike in found:
        counts[alike.group] = counts.get(alike.group, 0) + 1
        if counts[alike.group] <= limit:
            kept.append(alike)
    return kept
