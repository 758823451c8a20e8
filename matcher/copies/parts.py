"""A segment whose pictures have names, groups and may be removed: what an index is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final, Generic

import numpy as np
import numpy.typing as npt

from matcher.copies.codes import U32
from matcher.copies.names import Id, Names
from matcher.copies.segment import DEAD, Segment, merge

I64 = npt.NDArray[np.int64]
RATIO: Final = 256
"""A part is at least so many times as large as the newer one beside it, or both are merged: a search asks each part, so few are better."""
LARGEST: Final = 4_000_000
"""Pictures of a part, after which no other is merged into it: a merge needs as much memory again, 1.8 kB for each."""
_DEAD_SHARE: Final = 0.25


@dataclass(slots=True, eq=False)
class Part(Generic[Id]):
    """`ids`, `stamps` (int64, ascending) and `groups` (uint32) of the segment's pictures, and how many of them are `dead`. Of all this only
    groups change, by `bury`."""

    segment: Segment
    ids: Names[Id]
    stamps: I64
    groups: U32
    dead: int = field(init=False)

    def __post_init__(self) -> None:
        self.dead = int((self.groups == DEAD).sum())

    def bury(self, place: int) -> int:
        """Leaves a picture out that was there; the group that it had."""
        group, self.groups[place] = int(self.groups[place]), DEAD
        self.dead += 1
        return group

    @property
    def wasteful(self) -> bool:
        """Whether it is worth writing anew without its removed pictures."""
        return self.dead > max(16, _DEAD_SHARE * len(self.ids))

    @property
    def alive(self) -> int:
        """Pictures that are not left out."""
        return len(self.ids) - self.dead

    @property
    def nbytes(self) -> int:
        return self.segment.nbytes + self.stamps.nbytes + self.groups.nbytes + self.ids.nbytes

    def named(self, id_: object) -> int | None:
        """The number of the picture with this id, where it is here and not left out."""
        found = self.ids.place(id_)
        return None if found is None or self.groups[found] == DEAD else found

    def place(self, stamp: int) -> int | None:
        """The picture's number, where it is here."""
        found = int(np.searchsorted(self.stamps, stamp))
        return found if found < len(self.stamps) and self.stamps[found] == stamp else None


def joined(older: Part[Id], newer: Part[Id]) -> tuple[Part[Id], I64]:
    """Both in one, without what is removed by now; and the places of its pictures among those of both."""
    groups = np.concatenate([older.groups, newer.groups])
    kept = np.flatnonzero(groups != DEAD)
    numbers = np.full(len(groups), DEAD, np.uint32)
    numbers[kept] = np.arange(len(kept), dtype=np.uint32)
    cut = len(older.ids)
    segment = merge(older.segment, newer.segment, (numbers[:cut].copy(), numbers[cut:].copy()))
    ids = [*older.ids, *newer.ids]
    stamps = np.concatenate([older.stamps, newer.stamps])
    return Part(segment, Names(ids[place] for place in kept.tolist()), stamps[kept], groups[kept]), kept


def empty(like: Part[Id]) -> Part[Id]:
    """No picture: joined with this a part is written anew."""
    return Part(Segment.build([]), Names(), like.stamps[:0], like.groups[:0])


def due(parts: Sequence[Part[Id]]) -> tuple[Part[Id], Part[Id]] | None:
    """The first neighbours that are to be merged, or a part to be written anew and an empty one; None where all is well."""
    for older, newer in zip_longest(parts, parts[1:]):
        if newer is not None and _alike(older, newer):
            return older, newer
        if older.wasteful:
            return older, empty(older)
    return None


def _alike(older: Part[Id], newer: Part[Id]) -> bool:
    return len(older.ids) <= RATIO * len(newer.ids) and len(older.ids) + len(newer.ids) <= LARGEST
