"""Detection: the registered picture is taken out of the aligned query, and what is left is correlated with the key's pattern.

The key's coefficients are independent N(0, 1). For any query that does not know the key the statistic is therefore exactly N(0, 1),
whatever the query looks like and however it was weighted, as long as no weight depends on the key. Every key, sign and payload that is
tried on a picture counts as a hypothesis (Bonferroni), and so does every place where one mark is looked for. docs/watermark-statistics.md
derives this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from matcher.pixels import F64, U8
from matcher.watermark.align import Aligned, lay, places
from matcher.watermark.keys import C64, coefficients, pattern, secret_key
from matcher.watermark.payload import MAX_PAYLOAD, find, parts_of
from matcher.watermark.query import Query
from matcher.watermark.registration import Registration
from matcher.watermark.residual import spectrum
from matcher.watermark.significance import p_value
from matcher.watermark.small import reference
from matcher.watermark.sync import SHARE, SHIFTS, best_shift, search

MAX_P: Final = 1e-9
_MAX_DOUBT: Final = 1e-9
_SIGNS: Final = 2
SHARES: Final = (0.9, 0.03, 0.03, 0.02, 0.02 - SHARE)
"""Of all chances, for the places where the picture may lie in turn; the search by the mark itself has the rest."""


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """`marked`: whether p <= 1e-9; `p_value`: the chance that a picture without this mark looks as much like it; `payload`: the number that
    the mark carries, None where it carries none and where a wrong one would be likelier than 1e-9; `transform`: 3 x 3, registered -> query,
    in pixels; None where the query does not show the picture."""

    marked: bool
    p_value: float
    payload: int | None
    transform: F64 | None


def detect(rgb: U8, registration: Registration, *, secret: str | None = None, payload_max: int | None = None) -> Detection:
    """Whether the picture (H x W x 3 uint8) carries the registration's mark.

    `secret`: the passphrase that the mark was made with, where it takes one; without it, or with another, nothing is found. `payload_max`:
    the largest number that marks of this registration carry: the less are possible, the surer is what is found.

    Raises ValueError for what is no picture and a `payload_max` that is not in 0..16777215, and RegistrationInvalid.
    """
    if payload_max is not None and not 0 <= payload_max <= MAX_PAYLOAD:
        raise ValueError(f"a payload is a number from 0 to {MAX_PAYLOAD}")
    key = secret_key(registration.key, secret) if registration.secret and secret else registration.key
    known = bool(secret) or not registration.secret
    query = Query.of(rgb)
    first = _detect(query, [(registration, key if known else None)], 1, payload_max, thorough=True)[0]
    if first.marked or not known or registration.payload:
        return first
    second = _by_its_mark(query, registration, key)
    return second if second is not None and second.marked else first


def detect_all(
    query: Query, registrations: Sequence[Registration], *, tried: int | None = None, seen: F64 | None = None
) -> list[Detection]:
    """One detection per registration.

    `tried` is how many keys are tried on this picture in all, where that is more than these. `seen`: 3 x 3, registered -> query, where the
    registered picture, one for all, was seen already. A mark that takes a secret is not found here, and is no try.
    """
    keyed = [(registration, None if registration.secret else registration.key) for registration in registrations]
    return _detect(query, keyed, max(tried or 0, sum(key is not None for _, key in keyed)), None, seen=seen)


def _by_its_mark(query: Query, registration: Registration, key: bytes) -> Detection | None:
    """Where the query lies is found by the mark itself; None where the query can be no part of the picture."""
    known = reference(registration)
    drawn = coefficients(key, known.grid)
    found = search(pattern(drawn, known.grid), known.size, (query.form(False), query.form(True)))
    if found is None:
        return None
    aligned = lay(known, query, found.transform, found.flipped)
    if aligned is None:
        return None
    p = p_value(best_shift(spectrum(aligned), drawn, known.grid), found.among * SHIFTS / SHARE)
    return Detection(p <= MAX_P, p, None, aligned.transform)


def _detect(
    query: Query,
    keyed: Sequence[tuple[Registration, bytes | None]],
    keys: int,
    payload_max: int | None,
    *,
    seen: F64 | None = None,
    thorough: bool = False,
) -> list[Detection]:
    """Each registration with the key of its pattern, None where that is not known."""
    pictures: dict[tuple[bytes, int, int, int], list[int]] = {}
    for number, (registration, _) in enumerate(keyed):
        picture = registration.small, registration.width, registration.height, registration.scheme
        pictures.setdefault(picture, []).append(number)
    found: dict[int, Detection] = {}
    for numbers in pictures.values():
        of_one = _of_one_picture(query, [keyed[number] for number in numbers], keys, payload_max, seen, thorough)
        found |= dict(zip(numbers, of_one, strict=True))
    return [found[number] for number in range(len(keyed))]


def _of_one_picture(
    query: Query,
    keyed: Sequence[tuple[Registration, bytes | None]],
    keys: int,
    payload_max: int | None,
    seen: F64 | None,
    thorough: bool,
) -> list[Detection]:
    """It is aligned once for all its keys, at another place only where none of them is found at those before."""
    best = [Detection(False, 1.0, None, None) for _ in keyed]
    for share, place in zip(SHARES, places(query, keyed[0][0], seen, thorough=thorough), strict=False):
        if place.agrees:
            best = [replace(one, transform=place.transform) if one.transform is None else one for one in best]
        if all(key is None for _, key in keyed):
            break
        observed = spectrum(place)
        for number, (registration, key) in enumerate(keyed):
            if key is not None:
                best[number] = _surer(best[number], _score(place, observed, registration, key, keys, share, payload_max))
        if any(one.marked and (one.payload is not None or not r.payload) for one, (r, _) in zip(best, keyed, strict=True)):
            break
    return best


def _surer(one: Detection, other: Detection) -> Detection:
    """Of one key at two places. Where neither is marked, the first tells where the picture is."""
    if other.marked:
        return max(one, other, key=lambda each: (each.payload is not None, each.marked, -each.p_value))
    return replace(one, p_value=min(one.p_value, other.p_value))


def _score(
    place: Aligned, observed: C64, registration: Registration, key: bytes, keys: int, share: float, payload_max: int | None
) -> Detection:
    """`share`: of all chances."""
    each = terms(observed, key, place.known.grid)
    if not registration.payload:
        # a mark that was guessed and taken off more than once is as clearly there, upside down
        p = p_value(abs(float(each.sum())), _SIGNS * keys / share)
        return Detection(p <= MAX_P, p, None, place.transform)
    largest = MAX_PAYLOAD if payload_max is None else payload_max
    found = find(each, key, largest, parts_of(registration.scheme))
    p = p_value(found.statistic, keys * (largest + 1) / share)
    sure = p <= MAX_P and found.doubt <= _MAX_DOUBT * share
    return Detection(p <= MAX_P, p, found.payload if sure else None, place.transform)


def statistic(observed: C64, key: bytes, size: tuple[int, int]) -> float:
    """<s, x> / |x|: N(0, 1) for any `observed` that is independent of the key."""
    return float(terms(observed, key, size).sum())


def terms(observed: C64, key: bytes, size: tuple[int, int]) -> F64:
    """What each coefficient adds to the statistic: all 0 where nothing is observed."""
    norm = float(np.sqrt(np.sum(observed.real.astype(np.float64) ** 2 + observed.imag.astype(np.float64) ** 2)))
    drawn = coefficients(key, size)
    return (drawn.real * observed.real + drawn.imag * observed.imag).astype(np.float64) / max(norm, 1e-300)
