"""Detection: the registered picture is taken out of the aligned query, and what is left is correlated with the key's pattern.

The key's coefficients are independent N(0, 1). For any query that does not know the key the statistic is therefore exactly N(0, 1),
whatever the query looks like and however it was weighted, as long as no weight depends on the key. Every key and every payload that is
tried on a picture counts as a hypothesis (Bonferroni), and so does every place where one mark is looked for (`matcher.watermark.sync`).
docs/watermark-statistics.md derives this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from matcher.copies.features import Fingerprint
from matcher.pixels import F64, U8, check_rgb, gray
from matcher.watermark.align import Aligned, Query, align, lay
from matcher.watermark.keys import C64, coefficients, pattern, secret_key
from matcher.watermark.payload import MAX_PAYLOAD, find
from matcher.watermark.registration import Registration
from matcher.watermark.residual import spectrum
from matcher.watermark.significance import p_value
from matcher.watermark.small import reference
from matcher.watermark.sync import FIRST, SHARE, SHIFTS, best_shift, search

MAX_P: Final = 1e-9
_MAX_DOUBT: Final = 1e-9


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
    first = _detect(rgb, [(registration, key if known else None)], FIRST, payload_max, None, thorough=True)[0]
    if first.marked or not known or registration.payload:
        return first
    second = _by_its_mark(Query(gray(rgb)), registration, key)
    return second if second is not None and second.marked else first


def _by_its_mark(query: Query, registration: Registration, key: bytes) -> Detection | None:
    """Where the query lies is found by the mark itself; None where the query can be no part of the picture."""
    known = reference(registration)
    drawn = coefficients(key, known.grid)
    found = search(pattern(drawn, known.grid), known.size, (query.form(False), query.form(True)))
    aligned = None if found is None else lay(known, query, found.transform, found.flipped)
    if found is None or aligned is None:
        return None
    z = best_shift(spectrum(aligned, registration, query.size), drawn, known.grid)
    p = p_value(z, found.among * SHIFTS / SHARE)
    return Detection(p <= MAX_P, p, None, aligned.transform)


def detect_all(
    rgb: U8, registrations: Sequence[Registration], *, tried: int | None = None, print_: Fingerprint | None = None
) -> list[Detection]:
    """One detection per registration. `tried` is how many keys are tried on this picture in all, where that is more than these. A mark that
    takes a secret is not found here, and is no try."""
    keyed = [(registration, None if registration.secret else registration.key) for registration in registrations]
    return _detect(rgb, keyed, max(tried or 0, sum(key is not None for _, key in keyed)), None, print_)


def _detect(
    rgb: U8,
    keyed: Sequence[tuple[Registration, bytes | None]],
    keys: float,
    payload_max: int | None,
    print_: Fingerprint | None,
    *,
    thorough: bool = False,
) -> list[Detection]:
    """Each registration with the key of its pattern, None where that is not known. One picture is aligned once for all its keys."""
    check_rgb(rgb)
    luma = gray(rgb)
    aligned: dict[tuple[bytes, int, int, int], tuple[Aligned, C64] | None] = {}
    out = []
    for registration, key in keyed:
        picture = (registration.small, registration.width, registration.height, registration.scheme)
        if picture not in aligned:
            aligned[picture] = _prepare(luma, registration, print_, thorough)
        out.append(_score(aligned[picture], registration, key, keys, payload_max))
    return out


def _prepare(luma: U8, registration: Registration, print_: Fingerprint | None, thorough: bool) -> tuple[Aligned, C64] | None:
    found = align(luma, registration, print_, thorough=thorough)
    return (found, spectrum(found, registration, (luma.shape[1], luma.shape[0]))) if found is not None else None


def _score(
    prepared: tuple[Aligned, C64] | None, registration: Registration, key: bytes | None, keys: float, payload_max: int | None
) -> Detection:
    if prepared is None or key is None:
        return Detection(False, 1.0, None, None if prepared is None else prepared[0].transform)
    aligned, observed = prepared
    each = terms(observed, key, aligned.size)
    if not registration.payload:
        p = p_value(float(each.sum()), keys)
        return Detection(p <= MAX_P, p, None, aligned.transform)
    largest = MAX_PAYLOAD if payload_max is None else payload_max
    found = find(each, key, largest)
    p = p_value(found.statistic, keys * (largest + 1))
    sure = p <= MAX_P and found.doubt <= _MAX_DOUBT
    return Detection(p <= MAX_P, p, found.payload if sure else None, aligned.transform)


def statistic(observed: C64, key: bytes, size: tuple[int, int]) -> float:
    """<s, x> / |x|: N(0, 1) for any `observed` that is independent of the key."""
    return float(terms(observed, key, size).sum())


def terms(observed: C64, key: bytes, size: tuple[int, int]) -> F64:
    """What each coefficient adds to the statistic: all 0 where nothing is observed."""
    observed = observed.astype(np.complex128)
    norm = float(np.sqrt(np.sum(observed.real**2 + observed.imag**2)))
    drawn = coefficients(key, size)
    return np.asarray((drawn.real * observed.real + drawn.imag * observed.imag) / max(norm, 1e-300), np.float64)
