"""What is approximated or taken a short way to, done in full: an index that compares every feature, and the mirror of a fingerprint."""

from __future__ import annotations

from dataclasses import replace
from typing import Generic

import numpy as np
import pytest

from matcher.copies import segment
from matcher.copies.features import MIRROR, Fingerprint
from matcher.copies.index import CANDIDATES, LEAST, Candidate
from matcher.copies.names import Id
from matcher.copies.segment import EVERY, Query, Segment


def mirrored(print_: Fingerprint) -> Fingerprint:
    """With the features of the picture flipped left to right; look and thumbnail stay as they are."""
    points = print_.points.copy()
    points[:, 0] = print_.small[0] - 1 - points[:, 0]
    points[:, 3] = (180.0 - points[:, 3]) % 360.0
    return replace(print_, points=points, descriptors=print_.descriptors[:, MIRROR])


class BruteIndex(Generic[Id]):
    """What `CopyIndex` approximates. Pictures by id; one segment of a single cell is made for each question, without limits."""

    def __init__(self) -> None:
        self._pictures: dict[Id, tuple[Fingerprint, int]] = {}

    def add(self, id_: Id, print_: Fingerprint, group: int = 0) -> None:
        self._pictures[id_] = print_, group

    def remove(self, id_: Id) -> bool:
        return self._pictures.pop(id_, None) is not None

    def candidates(self, query: Fingerprint, group: int | None = None, limit: int = CANDIDATES) -> list[Candidate[Id]]:
        asked = {id_: (p, g) for id_, (p, g) in self._pictures.items() if group in (None, g)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(segment, "BUDGET", 1 << 40)
            patch.setattr(segment, "_MAX_BITS", 0)
            index = Segment.build([p for p, _ in asked.values()])
            patch.setenv("FILIGRANE_PURE", "1")
            votes = index.vote(Query.of(query), group=EVERY, among=len(asked), least=LEAST)
        names = list(asked.items())
        order = np.argsort(-votes.votes, kind="stable").tolist()
        found = [(names[int(votes.pictures[at])], float(votes.votes[at]), bool(votes.flipped[at])) for at in order]
        chosen = [Candidate(id_, score, flipped, g) for (id_, (_, g)), score, flipped in found]
        return [c for at, c in enumerate(chosen) if sum(other.group == c.group for other in chosen[:at]) < limit]
