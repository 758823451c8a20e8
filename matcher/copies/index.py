"""Which registered pictures may be in a query, and which are.

A few segments (`matcher.copies.segment`), new ones small, merged when they are alike in size (a log-structured merge: O'Neil et al. 1996);
removed pictures are marked at once and left out by the next merge. Searches see one tuple of segments and wait for nobody. The index is a
cache, rebuilt from fingerprints or a snapshot.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Final, Generic

import numpy as np

from matcher.copies import snapshot
from matcher.copies.features import Fingerprint
from matcher.copies.geometry import Model
from matcher.copies.look import NEAR, chance
from matcher.copies.look_index import GROUPS, LookIndex, LooksInvalid
from matcher.copies.names import Id, Names
from matcher.copies.parts import I64, Part, due, joined
from matcher.copies.plain import looks
from matcher.copies.prints import Prints
from matcher.copies.segment import DEAD, EVERY, Query, Segment
from matcher.copies.snapshot import Snapshot, SnapshotInvalid
from matcher.copies.verdict import Verdict, judge
from matcher.copies.votes import Votes

CANDIDATES: Final = 12
LEAST: Final = 10.0
"""Votes of a candidate: a picture of another one has as many by chance once in e^10 queries, were features independent. They are not: it is
one in two among 500 photographs. One copy in 400 that was attacked hard has fewer."""
_AT_ONCE: Final = 512
"""Pictures that are merged while somebody waits; above it a thread does it."""


@dataclass(frozen=True, slots=True)
class Candidate(Generic[Id]):
    """A registered picture that the index proposes; `votes`: minus ln of how many would have as many by chance, or look as much alike."""

    id: Id
    votes: float
    mirrored: bool
    group: int = 0

    @property
    def score(self) -> float:
        """How alike: minus log10 of how many pictures would be as much so by chance. Nothing is verified."""
        return self.votes / log(10)


@dataclass(frozen=True, slots=True)
class Found(Generic[Id]):
    """A registered picture that geometry confirms, or that is the query as a whole."""

    id: Id
    verdict: Verdict


class CopyIndex(Generic[Id]):
    """Registered pictures by id, each in a group. Thread-safe; what was added or removed counts at once."""

    def __init__(self, folder: Path | None = None, *, keep: bool = True) -> None:
        """`folder`: where whole fingerprints are kept while it lives; the system's temporary one by default. `keep`: without, whoever adds
        pictures keeps their fingerprints, and there is no `fingerprint`, `items` and `search`."""
        self._keep = keep
        self._lock = threading.RLock()
        self._parts: tuple[Part[Id], ...] = ()
        self._sizes: Counter[int] = Counter()
        self._prints = Prints(folder)
        self._looks = LookIndex()
        self._busy: tuple[Part[Id], ...] = ()
        self._merger: threading.Thread | None = None

    def __len__(self) -> int:
        return sum(part.alive for part in self._parts)

    def __contains__(self, id_: object) -> bool:
        with self._lock:
            return self._at(id_) is not None

    @property
    def nbytes(self) -> int:
        """Bytes in memory; ids that are no numbers left out."""
        return sum(part.nbytes for part in self._parts) + self._prints.nbytes + self._looks.nbytes

    def fingerprint(self, id_: Id) -> Fingerprint:
        """Raises KeyError."""
        with self._lock:  # one that is being replaced is there, as the old one or as the new one
            at = self._at(id_)
            if at is None:
                raise KeyError(id_)
            part, place = at
            data = self._prints.read(int(part.stamps[place]))
        return Fingerprint.from_bytes(data)

    def items(self) -> Iterator[tuple[Id, Fingerprint]]:
        """Those that are there now, while they are."""
        with self._lock:
            ids = [part.ids[place] for part in self._parts for place in np.flatnonzero(part.groups != DEAD).tolist()]
        for id_ in ids:
            try:
                yield id_, self.fingerprint(id_)
            except KeyError:
                continue

    def count(self, group: int | None) -> int:
        """How many pictures the group has, or all together."""
        return len(self) if group is None else self._sizes[group]

    def ids(self, group: int) -> set[Id]:
        """The group's pictures."""
        with self._lock:
            return {part.ids[place] for part in self._parts for place in np.flatnonzero(part.groups == group).tolist()}

    def add(self, id_: Id, print_: Fingerprint, group: int = 0) -> None:
        """Registers a picture in a group (0 to 2^23 - 1); one with the same id is replaced."""
        if not 0 <= group < GROUPS:
            raise ValueError(f"a group is a number from 0 to {GROUPS - 1}, not {group}")
        names, segment, data = Names([id_]), Segment.build([print_]), print_.to_bytes() if self._keep else b""
        with self._lock:
            before = self._at(id_)
            stamp = self._prints.append(data)
            self._sizes[group] += 1
            self._parts += (Part(segment, names, np.array([stamp]), np.array([group], np.uint32)),)
            if len(print_.look):
                self._looks.add(stamp, print_.look, group)
            if before is not None:
                self._bury(*before)
            self._tidy()

    def remove(self, id_: Id) -> bool:
        """Whether there was one."""
        with self._lock:
            at = self._at(id_)
            if at is not None:
                self._bury(*at)
                self._tidy()
            return at is not None

    def candidates(self, query: Fingerprint, group: int | None = None, limit: int = CANDIDATES) -> list[Candidate[Id]]:
        """Different pictures, at most `limit` of each group, the most promising first; of all groups, or of one. The mirror of the query is
        looked up with it. Where the query has too little texture for a vote, those that look like it follow."""
        found = self._voted(Query.of(query), group)
        return _limited(found if query.textured else [*found, *self._alike(query, group, limit, NEAR)], limit)

    def similar(self, query: Fingerprint, group: int | None = None, limit: int = CANDIDATES, within: float = NEAR) -> list[Candidate[Id]]:
        """Like `candidates`, and with them those that look like the query or its mirror as a whole, within a distance of their looks (0 to
        724); by whichever of both says more."""
        found = [*self._voted(Query.of(query), group), *self._alike(query, group, limit, within)]
        return _limited(sorted(found, key=lambda c: -c.votes), limit)

    def search(self, query: Fingerprint, model: Model = "scale", *, group: int | None = None, limit: int = CANDIDATES) -> list[Found[Id]]:
        """Candidates that are confirmed, copies first, then by score."""
        total = max(1, self.count(group))
        found = []
        for candidate in self.candidates(query, group, limit):
            try:
                print_ = self.fingerprint(candidate.id)
            except KeyError:  # removed since
                continue
            verdict = judge(print_, query, model, total)
            if verdict is not None:
                found.append(Found(candidate.id, verdict))
        return sorted(found, key=lambda f: (f.verdict.name != "copy", -f.verdict.score))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything that it keeps to a file, whole or not at all. Ids are what msgpack has: numbers, strings, bytes, tuples of
        them. Raises OSError."""
        with self._lock:
            taken = Snapshot([Part(p.segment, p.ids, p.stamps, p.groups.copy()) for p in self._parts], self._prints, self._looks.to_bytes())
        snapshot.write(taken, Path(path), prints=self._keep)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, folder: Path | None = None, verify: bool = True, keep: bool = True) -> CopyIndex[Id]:
        """What `save` wrote; the file is mapped into memory and must not be changed. Without `verify` what lies between its tables is not
        looked at. Raises OSError, SnapshotInvalid."""
        taken: Snapshot[Id] = snapshot.read(Path(path), folder, verify=verify)
        index = cls(folder, keep=keep)
        index._prints, index._parts = taken.prints, tuple(taken.parts)
        try:
            index._looks = LookIndex.from_bytes(taken.looks)
        except LooksInvalid as error:
            raise SnapshotInvalid(str(error)) from error
        for part in taken.parts:
            index._sizes.update(part.groups[part.groups != DEAD].tolist())
        return index

    def settle(self) -> None:
        """Waits until merges that are under way have ended."""
        while (merger := self._merger) is not None:
            merger.join()

    def _voted(self, query: Query, group: int | None) -> list[Candidate[Id]]:
        """By votes."""
        among = self.count(group)
        found: list[Candidate[Id]] = []
        for part in self._parts if among else ():
            wanted = EVERY if group is None else group
            found += _named(part, part.segment.vote(query, groups=part.groups, group=wanted, among=among, least=LEAST))
        return sorted(found, key=lambda c: -c.votes)

    def _alike(self, query: Fingerprint, group: int | None, limit: int, within: float) -> Iterator[Candidate[Id]]:
        """By their looks."""
        parts = self._parts
        among = max(1, self.count(group))
        found = [alike for one in looks(query) for alike in self._looks.nearest(one, limit, group, within)]
        for alike in sorted(found, key=lambda alike: alike.distance):
            votes = max(0.0, -log(among * chance(alike.distance)))
            for part in parts:
                place = part.place(alike.number)
                if place is not None and part.groups[place] != DEAD:
                    yield Candidate(part.ids[place], votes, alike.mirrored, alike.group)

    def _at(self, id_: object) -> tuple[Part[Id], int] | None:
        """The part and the place in it of a picture that is there. The lock is held."""
        found = ((part, part.named(id_)) for part in reversed(self._parts))
        return next(((part, place) for part, place in found if place is not None), None)

    def _bury(self, part: Part[Id], place: int) -> None:
        stamp, group = int(part.stamps[place]), part.bury(place)
        self._prints.remove(stamp)
        self._sizes[group] -= 1
        self._looks.remove(stamp, group)

    def _tidy(self) -> None:
        """Merges what is due: a little at once, more on a thread."""
        while (taken := self._due(_AT_ONCE)) is not None:
            self._put(taken, *joined(*taken))
        if self._merger is None and (self._due() is not None or self._prints.wasteful):
            self._merger = threading.Thread(target=self._merge, name="copies-merge", daemon=True)
            self._merger.start()

    def _due(self, most: int = DEAD) -> tuple[Part[Id], Part[Id]] | None:
        """Neighbours to be merged, of at most so many pictures, none of which is being merged."""
        after = [place for place, part in enumerate(self._parts, 1) if part in self._busy]
        taken = due(self._parts[max(after, default=0) :])
        return taken if taken and sum(len(part.ids) for part in taken) <= most else None

    def _put(self, taken: tuple[Part[Id], Part[Id]], merged: Part[Id], kept: I64) -> None:
        """Puts the merged part into its place; what was removed meanwhile is removed there too."""
        merged = replace(merged, groups=np.concatenate([part.groups for part in taken])[kept])
        at = self._parts.index(taken[0])
        end = at + sum(part in taken for part in self._parts)
        self._parts = (*self._parts[:at], merged, *self._parts[end:])

    def _merge(self) -> None:
        """On a thread of its own, until nothing is due."""
        try:
            while self._merge_one():
                pass
        except BaseException:
            with self._lock:
                self._busy, self._merger = (), None
            raise

    def _merge_one(self) -> bool:
        with self._lock:
            taken, wasteful = self._due(), self._prints.wasteful
            if taken is None and not wasteful:
                self._merger = None
                return False
            self._busy = taken or ()
        if wasteful:
            self._prints.rewrite()
        if taken is not None:
            merged, kept = joined(*taken)
            with self._lock:
                self._busy = ()
                self._put(taken, merged, kept)
        return True


def _limited(candidates: Sequence[Candidate[Id]], limit: int) -> list[Candidate[Id]]:
    """The first `limit` of each group, each picture once."""
    counts: Counter[int] = Counter()
    kept: dict[Id, Candidate[Id]] = {}
    for candidate in candidates:
        if candidate.id not in kept and counts[candidate.group] < limit:
            counts[candidate.group] += 1
            kept[candidate.id] = candidate
    return list(kept.values())


def _named(part: Part[Id], votes: Votes) -> Iterator[Candidate[Id]]:
    for picture, score, flipped in zip(votes.pictures.tolist(), votes.votes.tolist(), votes.flipped.tolist(), strict=True):
        group = int(part.groups[picture])
        if group != DEAD:
            yield Candidate(part.ids[picture], score, flipped, group)
