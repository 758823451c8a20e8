"""The features of a file's pictures: a segment, and the merge of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from matcher.copies.codes import U32, encode
from matcher.copies.features import INDEXED, Fingerprint
from matcher.copies.segment import DEAD, Segment, merge, places
from matcher.copies.votes import PLACE


def segment(prints: Sequence[Fingerprint | None]) -> Segment:
    """Pictures 0..n-1, the first `INDEXED` features of each; some have none."""
    there = [(number, print_) for number, print_ in enumerate(prints) if print_ is not None]
    codes = [encode(print_.descriptors[:INDEXED]).codes for _, print_ in there]
    where = [places(print_.points[:INDEXED], number) for number, print_ in there]
    return Segment.of(len(prints), np.concatenate([np.zeros(0, np.uint64), *codes]), np.concatenate([np.zeros(0, PLACE), *where]))


def merged(parts: Sequence[Segment], kept: Sequence[npt.NDArray[np.bool_]]) -> Segment:
    """One segment with the pictures of all that are kept, in their order."""
    return _merged([(part, _numbers(keep), int(keep.sum())) for part, keep in zip(parts, kept, strict=True)])[0]


_Part = tuple[Segment, U32, int]
"""A segment, the new numbers of its pictures, and how many of these there are."""


def _merged(parts: Sequence[_Part]) -> _Part:
    """Halves first, so that every entry is moved as seldom as can be."""
    if len(parts) < 2:
        part, numbers, count = parts[0] if parts else (segment([]), np.zeros(0, np.uint32), 0)
        return merge(part, segment([]), (numbers, np.zeros(0, np.uint32))), _every(count), count
    (first, one, some), (second, two, others) = _merged_or_leaf(parts[: len(parts) // 2]), _merged_or_leaf(parts[len(parts) // 2 :])
    behind = np.where(two == DEAD, two, two + np.uint32(some)).astype(np.uint32)
    return merge(first, second, (one, behind)), _every(some + others), some + others


def _merged_or_leaf(parts: Sequence[_Part]) -> _Part:
    return parts[0] if len(parts) == 1 else _merged(parts)


def _every(count: int) -> U32:
    return np.arange(count, dtype=np.uint32)


def _numbers(kept: npt.NDArray[np.bool_]) -> U32:
    """New numbers from 0 on, of those that are kept."""
    return np.where(kept, np.cumsum(kept) - 1, DEAD).astype(np.uint32)
