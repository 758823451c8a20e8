"""The whole flow of one picture: what is registered, and is in it?

digest known? -> fingerprint of what is decoded small -> candidates -> geometry -> verdict -> watermark detection with the keys of every
candidate, whatever its verdict (its pixels are only decoded for that) -> matches. Nothing here reads the bus or writes anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np

from core.errors import InvalidInput
from core.events import ImageFound, SearchAsked, SearchHit, Why
from core.repo.matches import MatchDraft
from core.telemetry import counter, histogram
from core.urls import registrable_domain
from matcher.copies.features import Fingerprint
from matcher.copies.geometry import MODELS, Model
from matcher.copies.index import Candidate
from matcher.copies.verdict import Verdict, judge
from matcher.pixels import F64, U8, scaling
from matcher.recent import Recent
from matcher.registry import Registry
from matcher.watermark.detect import Detection, detect_all
from matcher.watermark.query import Query
from matcher.watermark.registration import Registration

CRAWL_MODEL: Final[Model] = "affine"
_FINGERPRINTS: Final = 1_000
_FINDS: Final = 100_000

stage_seconds = histogram(
    "filigrane_matcher_stage_seconds",
    "Work on pictures by stage: read, decode, candidates (of one picture), judge (one candidate), detect (its keys), record.",
    ["stage"],
)
_keys: Final = counter(
    "filigrane_matcher_keys", "Keys of candidates: tried on a picture, or left out because they take a passphrase.", ["outcome"]
)


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
        self.shard = registry.shard
        self._registry = registry
        self._prints: Recent[Fingerprint] = Recent(_FINGERPRINTS)
        self._finds: Recent[tuple[Find, ...]] = Recent(_FINDS)

    def known(self, event: ImageFound) -> bool:
        """Whether `matches` will need no bytes. Raises Unavailable."""
        account = self._caught_up(event)
        return not self._registry.size(account) or (account, self._registry.state(account), event.sha256) in self._finds

    def matches(self, event: ImageFound, source: Source) -> list[MatchDraft]:
        """A draft for each find and page. Raises Unavailable, and what `source` does."""
        account = self._caught_up(event)
        key = (account, self._registry.state(account), event.sha256)  # read first: what is found may be newer, never older
        finds = self._finds.get(key) if self._registry.size(account) else ()
        if finds is None:
            query = self.fingerprint(event.sha256, source)
            finds = tuple(self._look(self._candidates(query, account), query, source.pixels, CRAWL_MODEL))
            self._finds.put(key, finds)
        return [draft for find in finds for draft in drafts(event, find)]

    def _caught_up(self, event: ImageFound) -> int | None:
        """Whose pictures are looked for, up to date: the session's account's, or (None) everybody's for shared sessions."""
        if event.shared:
            self._registry.catch_up_all()
            return None
        self._registry.catch_up(event.account, event.registry_version)
        return event.account

    def has_fingerprint(self, sha256: str) -> bool:
        return sha256 in self._prints

    def fingerprint(self, sha256: str, source: Source) -> Fingerprint:
        """The picture's, kept for when it comes again. Raises what `source` does."""
        known = self._prints.get(sha256)
        if known is None:
            known = source.fingerprint()
            self._prints.put(sha256, known)
        return known

    def search(self, event: SearchAsked, source: Source) -> tuple[list[SearchHit], int]:
        """The asking account's pictures in a query, and how many were looked at.

        Raises InvalidInput for an unknown transform, Unavailable, and what `source` does.
        """
        model = model_of(event.transform)
        self._registry.catch_up(event.account, event.registry_version)
        query = source.fingerprint()
        if event.similar:
            alike = self._registry.similar(query, event.account)
            return [_unverified(c) for c in alike], len(alike)
        proposed = self._candidates(query, event.account)
        return [hit(find) for find in self._look(proposed, query, source.pixels, model)], len(proposed)

    def _candidates(self, query: Fingerprint, account: int | None) -> list[Candidate[int]]:
        with stage_seconds.labels("candidates").time():
            return self._registry.candidates(query, account)

    def _look(self, candidates: Sequence[Candidate[int]], query: Fingerprint, pixels: Callable[[], U8], model: Model) -> Iterator[Find]:
        """What is in the picture. All candidates are known before the first key is tried: each key of the candidate's account counts in the
        p-value, and none of another's, which would tell how many that has.

        What other shards try is not known here. A shard of n counts its own keys n times: a false alarm at level p then has at most the
        chance p / n in each shard, and p in all of them together (a union bound with equal weights). The same holds for the pictures
        that a verdict counts.
        """
        shards = self.shard.of
        marked = [(c, _to_try(self._registry.registrations(c.id))) for c in candidates]
        keys = Counter(c.group for c, registrations in marked for _ in registrations)
        marks = cache(lambda: Query.of(pixels(), query))
        for candidate, registrations in marked:
            try:
                print_ = self._registry.fingerprint(candidate.id)
            except KeyError:  # deleted meanwhile
                continue
            with stage_seconds.labels("judge").time():
                verdict = judge(print_, query, model, max(1, shards * self._registry.size(candidate.group)))
            detections = _detect(marks(), query, verdict, registrations, shards * keys[candidate.group]) if registrations else []
            yield from finds_of(candidate, verdict, registrations, detections)


def _to_try(registrations: Sequence[Registration]) -> list[Registration]:
    """Those whose marks can be found without a passphrase, which nobody gives a matcher."""
    tried = [registration for registration in registrations if not registration.secret]
    _keys.labels("tried").inc(len(tried))
    _keys.labels("secret").inc(len(registrations) - len(tried))
    return tried


def model_of(transform: str) -> Model:
    """Raises InvalidInput."""
    model: Model | None = next((m for m in MODELS if m == transform), None)
    if model is None:
        raise InvalidInput(f"transform is one of {', '.join(MODELS)}", code="bad_transform")
    return model


def finds_of(
    candidate: Candidate[int], verdict: Verdict | None, registrations: Sequence[Registration], detections: Sequence[Detection]
) -> Iterator[Find]:
    """Detections first, then the copy."""
    account, picture = candidate.group, candidate.id
    detected = [(r, d) for r, d in zip(registrations, detections, strict=True) if d.marked]
    for registration, detection in detected:
        yield Find(account, picture, registration.key_id, verdict, detection, True)
    if verdict is not None and verdict.name == "copy":
        yield Find(account, picture, "", verdict, None, bool(detected))


def _detect(
    query: Query, print_: Fingerprint, verdict: Verdict | None, registrations: Sequence[Registration], tried: int
) -> list[Detection]:
    """Detections with their transform in pixels of the original, not of what was decoded of it."""
    grown = scaling(query.size, (print_.width, print_.height))
    seen = np.linalg.inv(grown) @ verdict.transform if verdict is not None and verdict.name == "copy" else None
    with stage_seconds.labels("detect").time():
        detections = detect_all(query, registrations, tried=tried, seen=seen)
    return [replace(d, transform=_unit(grown @ d.transform)) if d.transform is not None else d for d in detections]


def _unit(transform: F64) -> F64:
    return np.asarray(transform / transform[2, 2])


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
    return SearchHit(candidate.id, "", None, candidate.score, None, None, candidate.mirrored, None, None)


def _numbers(find: Find) -> list[float] | None:
    """The verdict's transform where it is a copy, else the one that the watermark was found with."""
    if find.verdict is not None and (find.verdict.name == "copy" or find.detection is None):
        return [float(v) for v in find.verdict.transform.ravel()]
    if find.detection is not None and find.detection.transform is not None:
        return [float(v) for v in find.detection.transform.ravel()]
    return None
