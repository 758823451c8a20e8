"""The whole flow of one picture: what is registered, and is in it?

digest known? -> fingerprint of what is decoded small -> candidates -> geometry -> verdict -> watermark detection with the keys of every
candidate, whatever its verdict (its pixels are only decoded for that) -> matches. Nothing here reads the bus or writes anything.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, Generic, TypeVar

import numpy as np

from core.errors import InvalidInput
from core.events import ImageFound, SearchAsked, SearchHit, Why
from core.repo.matches import MatchDraft
from core.telemetry import histogram
from core.urls import registrable_domain
from matcher.copies.features import Fingerprint
from matcher.copies.geometry import MODELS, Model
from matcher.copies.index import Candidate
from matcher.copies.verdict import Verdict, judge
from matcher.pixels import F64, U8, scaling
from matcher.registry import AccountRegistry, Registry
from matcher.watermark.detect import Detection, detect_all
from matcher.watermark.keys import Registration

CRAWL_MODEL: Final[Model] = "affine"
_FINGERPRINTS: Final = 1_000
_FINDS: Final = 100_000

stage_seconds = histogram(
    "filigrane_matcher_stage_seconds",
    "Work on pictures by stage: read, decode, candidates (of one picture), judge (one candidate), detect (its keys), record.",
    ["stage"],
)

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Source:
    """Ways to a picture, taken only where it is needed: to its fingerprint, and to its pixels (upright, H x W x 3 sRGB; smaller than the
    original where that is large). Either may raise InvalidImage, UnsupportedMedia, ObjectMissing, Unavailable."""

    fingerprint: Callable[[], Fingerprint]
    pixels: Callable[[], U8]


@dataclass(frozen=True, slots=True, eq=False)
class Find:
    """A registered picture in a query: by its look (`key_id` empty, verdict given), or by the key that was detected."""

    account: int
    picture: int
    key_id: str
    verdict: Verdict | None
    detection: Detection | None
    key_detected: bool


class Pipeline:
    """Used by several threads; each picture's fingerprint, and what was found in it, is kept for when it comes again."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._prints: _Cache[Fingerprint] = _Cache(_FINGERPRINTS)
        self._finds: _Cache[tuple[Find, ...]] = _Cache(_FINDS)

    def registries(self, event: ImageFound) -> list[AccountRegistry]:
        """Whose pictures are looked for: the session's account, caught up to the message; for shared sessions, everybody's."""
        own = self._registry.of(event.account, event.registry_version)
        return self._registry.everyone() if event.shared else [own]

    def known(self, event: ImageFound) -> bool:
        """Whether `matches` will need no bytes."""
        return all((r.account, r.version, event.sha256) in self._finds or not len(r.copies) for r in self.registries(event))

    def matches(self, event: ImageFound, source: Source) -> list[MatchDraft]:
        """A draft for each find and page. Raises what `source` does."""
        registries = [registry for registry in self.registries(event) if len(registry.copies)]
        known = [self._finds.get((registry.account, registry.version, event.sha256)) for registry in registries]
        finds = [find for some in known if some is not None for find in some]
        if None in known:
            # all of them again: a key counts in the p-value whoever registered it
            finds = []
            for registry, version, found in self._look(registries, event.sha256, source):
                self._finds.put((registry.account, version, event.sha256), found)
                finds += found
        return [draft for find in finds for draft in drafts(event, find)]

    def fingerprint(self, sha256: str, source: Source) -> Fingerprint:
        """The picture's, kept for when it comes again. Raises what `source` does."""
        known = self._prints.get(sha256)
        if known is None:
            known = source.fingerprint()
            self._prints.put(sha256, known)
        return known

    def _look(
        self, registries: Sequence[AccountRegistry], sha256: str, source: Source
    ) -> list[tuple[AccountRegistry, int, tuple[Find, ...]]]:
        """What each registry has in the picture. All candidates are known before the first key is tried: each key counts in the p-value."""
        versions = [r.version for r in registries]
        query, pixels, tried = self.fingerprint(sha256, source), cache(source.pixels), _Tried(self._registry)
        with stage_seconds.labels("candidates").time():
            candidates = [r.copies.candidates(query) for r in registries]
        for registry, proposed in zip(registries, candidates, strict=True):
            tried.count(registry, proposed)
        return [
            (registry, version, finds_in(registry, proposed, query, pixels, tried, CRAWL_MODEL))
            for registry, version, proposed in zip(registries, versions, candidates, strict=True)
        ]

    def search(self, event: SearchAsked, source: Source) -> tuple[list[SearchHit], int]:
        """The asking account's pictures in a query, and how many were looked at.

        Raises InvalidInput for an unknown transform, and what `source` does.
        """
        model: Model | None = next((m for m in MODELS if m == event.transform), None)
        if model is None:
            raise InvalidInput(f"transform is one of {', '.join(MODELS)}", code="bad_transform")
        registry = self._registry.of(event.account, event.registry_version)
        query = source.fingerprint()
        proposed = registry.copies.candidates(query)
        if event.similar:
            return [_unverified(c) for c in proposed], len(proposed)
        tried = _Tried(self._registry)
        tried.count(registry, proposed)
        finds = finds_in(registry, proposed, query, cache(source.pixels), tried, model)
        return [hit(find) for find in finds], len(proposed)


def finds_in(
    registry: AccountRegistry,
    candidates: Sequence[Candidate[int]],
    query: Fingerprint,
    pixels: Callable[[], U8],
    tried: _Tried,
    model: Model,
) -> tuple[Find, ...]:
    """Judges each candidate and tries each of its keys: detections first, then copies."""
    finds: list[Find] = []
    for candidate in candidates:
        try:
            print_ = registry.copies.fingerprint(candidate.id)
        except KeyError:  # deleted meanwhile
            continue
        with stage_seconds.labels("judge").time():
            verdict = judge(print_, query, model, max(1, len(registry.copies)))
        registrations = tried.registrations(registry, candidate.id)
        detections = _detect(pixels(), query, registrations, tried.total) if registrations else []
        detected = [(r, d) for r, d in zip(registrations, detections, strict=True) if d.marked]
        finds += [Find(registry.account, candidate.id, r.key_id, verdict, d, True) for r, d in detected]
        if verdict is not None and verdict.name == "copy":
            finds.append(Find(registry.account, candidate.id, "", verdict, None, bool(detected)))
    return tuple(finds)


def _detect(rgb: U8, print_: Fingerprint, registrations: Sequence[Registration], tried: int) -> list[Detection]:
    """Detections with their transform in pixels of the original, not of what was decoded of it."""
    height, width = rgb.shape[:2]
    seen = replace(print_, width=width, height=height)
    grown = scaling((width, height), (print_.width, print_.height))
    with stage_seconds.labels("detect").time():
        detections = detect_all(rgb, registrations, tried=tried, print_=seen)
    return [replace(d, transform=_unit(grown @ d.transform)) if d.transform is not None else d for d in detections]


def _unit(transform: F64) -> F64:
    return np.asarray(transform / transform[2, 2])


class _Tried:
    """The keys that are tried on one picture, over all candidates and accounts."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.total = 0

    def registrations(self, registry: AccountRegistry, picture: int) -> list[Registration]:
        keys = [key.lmk_key for key in registry.keys.get(picture, ()) if key.lmk_key is not None]
        return [found for key in keys if (found := self._registry.registration(key)) is not None]

    def count(self, registry: AccountRegistry, candidates: Sequence[Candidate[int]]) -> None:
        self.total += sum(len(self.registrations(registry, c.id)) for c in candidates)


def drafts(event: ImageFound, find: Find) -> list[MatchDraft]:
    """A match for each page on which the found picture was seen."""
    return [
        MatchDraft(
            account_id=find.account,
            picture_id=find.picture,
            key_id=find.key_id,
            sha256=event.sha256,
            md5=event.md5,
            page_url=sighting.page_url,
            site=registrable_domain(sighting.page_url),
            query_url=event.url,
            alt=sighting.alt,
            session_id=event.session,
            watermarked=find.detection is not None,
            first_seen=event.first_seen,
            request_id=event.request_id,
            width=event.width,
            height=event.height,
            last_modified=event.last_modified,
            p_value=find.detection.p_value if find.detection else None,
            payload=find.detection.payload if find.detection else None,
            verdict=find.verdict.name if find.verdict else None,
            score=find.verdict.score if find.verdict else None,
            mirrored=find.verdict.mirrored if find.verdict else None,
            overlap=find.verdict.overlap if find.verdict else None,
            transform=_numbers(find),
            key_detected=find.key_detected,
        )
        for sighting in event.sightings
    ]


def hit(find: Find) -> SearchHit:
    transform = _numbers(find)
    return SearchHit(
        picture=find.picture,
        key_id=find.key_id,
        verdict=find.verdict.name if find.verdict else None,
        score=find.verdict.score if find.verdict else None,
        p_value=find.detection.p_value if find.detection else None,
        payload=find.detection.payload if find.detection else None,
        mirrored=find.verdict.mirrored if find.verdict else None,
        overlap=find.verdict.overlap if find.verdict else None,
        transform=tuple(transform) if transform else None,
        why=why(find.verdict) if find.verdict else None,
    )


def why(verdict: Verdict) -> Why:
    likeness = verdict.likeness
    return Why(verdict.pairs, verdict.inliers, round(likeness.share, 3), round(likeness.median, 3))


def _unverified(candidate: Candidate[int]) -> SearchHit:
    return SearchHit(candidate.id, "", None, None, None, None, candidate.mirrored, None, None)


def _numbers(find: Find) -> list[float] | None:
    """The verdict's transform where it is a copy, else the one that the watermark was found with."""
    if find.verdict is not None and (find.verdict.name == "copy" or find.detection is None):
        return [float(v) for v in find.verdict.transform.ravel()]
    if find.detection is not None and find.detection.transform is not None:
        return [float(v) for v in find.detection.transform.ravel()]
    return None


class _Cache(Generic[V]):
    """The most recently used entries. Thread-safe."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, key: Hashable) -> bool:
        with self._lock:
            return key in self._entries

    def get(self, key: Hashable) -> V | None:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
            return self._entries.get(key)

    def put(self, key: Hashable, value: V) -> None:
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)
