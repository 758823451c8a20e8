"""The looks of registered pictures, held by FAISS: a scan of all while they are few, an inverted file above that."""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt

from matcher.copies.features import MIRROR
from matcher.copies.sift import DIMENSIONS
from matcher.pixels import U8

Numbers = npt.NDArray[np.int64]

NEAR: Final = 130.0
"""Distance within which a look is proposed as the same picture: pictures that have nothing to do with each other are rarely as near."""
_FLAT: Final = 8_192
_GROWTH: Final = 16
_PROBES: Final = 4
_SAMPLE: Final = 40
_ROUNDS: Final = 8
_NUMBER_BITS: Final = 40
_MAX_GROUP: Final = 1 << (63 - _NUMBER_BITS)
_WIDEST: Final = 4_096
_MAGIC: Final = b"FGL1"


class LooksInvalid(ValueError):
    """The bytes are no looks of a version that this program reads, or damaged."""


@dataclass(frozen=True, slots=True)
class Alike:
    """A picture whose look is near: `distance` is Euclidean, 0 (equal) to about 700."""

    number: int
    group: int
    distance: float
    mirrored: bool


class LookIndex:
    """Looks by number, each in a group. Thread-safe; what was added or removed counts at once.

    Numbers are below 2^40 and each is given once. The inverted file is learnt in the background, and again when it has grown many times.
    """

    def __init__(self, flat: int = _FLAT) -> None:
        self._lock = threading.Lock()
        self._index: Any = _flat()
        self._limit = flat
        self._changes: list[tuple[int, U8 | None]] | None = None
        self._learning: threading.Thread | None = None

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def nbytes(self) -> int:
        """Bytes of memory: look and number of each, and the lists' centres."""
        lists = 0 if isinstance(self._index, faiss.IndexIDMap2) else self._index.nlist
        return len(self) * (DIMENSIONS + 8) + lists * DIMENSIONS * 4

    def add(self, number: int, look: U8, group: int = 0) -> None:
        """Raises ValueError where `look` is no look, or number or group are out of range."""
        if look.shape != (DIMENSIONS,):
            raise ValueError(f"a look has {DIMENSIONS} numbers; this has the shape {look.shape}")
        with self._lock:
            self._apply(_key(number, group), look)
            if len(self) > self._limit and self._learning is None:
                self._learning = threading.Thread(target=self._learn, name="looks", daemon=True)
                self._learning.start()

    def remove(self, number: int, group: int = 0) -> None:
        """Nothing happens where there is none."""
        with self._lock:
            self._apply(_key(number, group), None)

    def nearest(self, look: U8, limit: int, group: int | None = None, within: float = NEAR) -> list[Alike]:
        """At most `limit` pictures of each group (or of `group`) not farther than `within`, of the look or its mirror, nearest first."""
        if not len(look) or not len(self):
            return []
        both = np.stack([look, look[MIRROR]]).astype(np.float32)
        width = limit if group is not None else 8 * limit
        while True:
            found = self._search(both, min(width, len(self)), group, within)
            if group is not None or len(found) < width or width >= min(_WIDEST, len(self)):
                return _first_of_each(found, limit)
            width *= 4  # one group's pictures may stand before another's

    def settle(self) -> None:
        """Waits until nothing is being learnt."""
        learning = self._learning
        if learning is not None:
            learning.join()

    def to_bytes(self) -> bytes:
        with self._lock:
            body = self._limit.to_bytes(8, "big") + faiss.serialize_index(self._index).tobytes()
        return _MAGIC + zlib.crc32(body).to_bytes(4, "big") + body

    @classmethod
    def from_bytes(cls, data: bytes) -> LookIndex:
        """Raises LooksInvalid."""
        if data[:4] != _MAGIC or zlib.crc32(data[8:]).to_bytes(4, "big") != data[4:8]:
            raise LooksInvalid("not looks, looks of another version, or damaged")
        made = cls(int.from_bytes(data[8:16], "big"))
        try:
            made._index = faiss.deserialize_index(np.frombuffer(data[16:], np.uint8))
        except RuntimeError as error:
            raise LooksInvalid(f"the looks cannot be read: {error}") from error
        return made

    def _apply(self, key: int, look: U8 | None) -> None:
        _change(self._index, key, look)
        if self._changes is not None:
            self._changes.append((key, look))

    def _search(self, both: npt.NDArray[np.float32], width: int, group: int | None, within: float) -> list[Alike]:
        with self._lock:
            distances, keys = self._index.search(both, width, params=_parameters(self._index, group))
        keep = (keys >= 0) & (distances <= within * within)
        order = np.argsort(distances[keep], kind="stable")
        flipped = np.broadcast_to(np.array([[False], [True]]), keys.shape)[keep][order]
        return [
            Alike(int(key) & (1 << _NUMBER_BITS) - 1, int(key) >> _NUMBER_BITS, float(distance) ** 0.5, bool(flip))
            for key, distance, flip in zip(keys[keep][order], distances[keep][order], flipped, strict=True)
        ]

    def _learn(self) -> None:
        """Learns the lists from what is there now, fills them while others go on, and takes over what changed meanwhile."""
        with self._lock:
            keys, looks = _contents(self._index)
            self._changes = []
        learnt = _inverted(looks)
        learnt.add_with_ids(looks.astype(np.float32), keys)
        with self._lock:
            for key, look in self._changes:
                _change(learnt, key, look)
            self._index, self._changes, self._learning = learnt, None, None
            self._limit = _GROWTH * len(keys)


def _key(number: int, group: int) -> int:
    if not 0 <= number < 1 << _NUMBER_BITS or not 0 <= group < _MAX_GROUP:
        raise ValueError(f"numbers are below 2^{_NUMBER_BITS} and groups below {_MAX_GROUP}; not {number}, {group}")
    return group << _NUMBER_BITS | number


def _change(index: faiss.Index, key: int, look: U8 | None) -> None:
    if look is None:
        index.remove_ids(faiss.IDSelectorRange(key, key + 1))
    else:
        index.add_with_ids(look[None].astype(np.float32), np.array([key], np.int64))


def _first_of_each(found: list[Alike], limit: int) -> list[Alike]:
    """The nearest of each picture and its mirror, at most `limit` of a group."""
    kept: dict[tuple[int, int], Alike] = {}
    counts: dict[int, int] = {}
    for alike in found:
        if (alike.group, alike.number) in kept or counts.get(alike.group, 0) >= limit:
            continue
        kept[alike.group, alike.number] = alike
        counts[alike.group] = counts.get(alike.group, 0) + 1
    return list(kept.values())


def _parameters(index: Any, group: int | None) -> Any:
    named: dict[str, Any] = {}
    if group is not None:
        named["sel"] = faiss.IDSelectorRange(group << _NUMBER_BITS, (group + 1) << _NUMBER_BITS)
    if isinstance(index, faiss.IndexIDMap2):
        return faiss.SearchParameters(**named)
    made: Any = faiss.SearchParametersIVF
    return made(nprobe=_PROBES, **named)


def _flat() -> faiss.Index:
    return faiss.IndexIDMap2(faiss.IndexScalarQuantizer(DIMENSIONS, faiss.ScalarQuantizer.QT_8bit_direct, faiss.METRIC_L2))


def _inverted(looks: U8) -> faiss.Index:
    """An empty inverted file whose lists suit these looks (n x 128) and several times as many."""
    lists = int(2 ** np.round(np.log2(4 * np.sqrt(max(len(looks), 16)))))
    sample = looks
    if len(looks) > _SAMPLE * lists:
        sample = looks[np.random.default_rng(0).choice(len(looks), _SAMPLE * lists, replace=False)]
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatL2(DIMENSIONS), DIMENSIONS, lists, faiss.ScalarQuantizer.QT_8bit_direct, faiss.METRIC_L2, False
    )
    index.cp.niter, index.cp.min_points_per_centroid = _ROUNDS, 1
    index.train(sample.astype(np.float32))
    return index


def _contents(index: Any) -> tuple[Numbers, U8]:
    """(keys, looks) of everything in it, copied."""
    if isinstance(index, faiss.IndexIDMap2):
        stored: Any = faiss.downcast_index(index.index)
        return faiss.vector_to_array(index.id_map), faiss.vector_to_array(stored.codes).reshape(-1, DIMENSIONS)
    lists = index.invlists
    filled = [(i, size) for i in range(lists.nlist) if (size := lists.list_size(i))]
    return (
        np.concatenate([faiss.rev_swig_ptr(lists.get_ids(i), size) for i, size in filled]),
        np.concatenate([faiss.rev_swig_ptr(lists.get_codes(i), size * DIMENSIONS) for i, size in filled]).reshape(-1, DIMENSIONS),
    )
