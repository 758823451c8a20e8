"""Detection: the registered picture is taken out of the aligned query, and what is left is correlated with the key's pattern.

The key's coefficients are independent N(0, 1). For any query that does not know the key the statistic is therefore exactly N(0, 1),
whatever the query looks like and however it was weighted, as long as no weight depends on the key. Every key that is tried on a picture
counts as a hypothesis (Bonferroni).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, sqrt
from typing import Final

import cv2
import numpy as np

from matcher.copies.features import Fingerprint
from matcher.pixels import F32, F64, U8, check_rgb, gray
from matcher.watermark.align import Aligned, align
from matcher.watermark.errors import NotSupported
from matcher.watermark.keys import C64, Band, band, coefficients, strength
from matcher.watermark.registration import Registration

MAX_P: Final = 1e-9
_WINDOW: Final = 31
_RINGS: Final = 24


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """`marked`: whether p <= 1e-9; `p_value`: the chance that a picture without this mark looks as much like it; `payload`: none yet;
    `transform`: 3 x 3, registered -> query, in pixels; None where the query does not show the picture."""

    marked: bool
    p_value: float
    payload: int | None
    transform: F64 | None


def detect(rgb: U8, registration: Registration, *, secret: str | None = None, payload_max: int | None = None) -> Detection:
    """Whether the picture (H x W x 3 uint8) carries the registration's mark.

    Raises ValueError for what is no picture, RegistrationInvalid, and NotSupported for secret and payload_max.
    """
    if secret is not None or payload_max is not None:
        raise NotSupported("payload and secret are not built yet")
    return detect_all(rgb, [registration])[0]


def detect_all(
    rgb: U8, registrations: Sequence[Registration], *, tried: int | None = None, print_: Fingerprint | None = None
) -> list[Detection]:
    """One detection per registration. `tried` is how many keys are tried on this picture in all, where that is more than these."""
    check_rgb(rgb)
    luma = gray(rgb)
    count = max(tried or 0, len(registrations))
    aligned: dict[tuple[bytes, int, int], tuple[Aligned, C64] | None] = {}
    out = []
    for registration in registrations:
        picture = (registration.small, registration.width, registration.height)
        if picture not in aligned:
            aligned[picture] = _prepare(luma, registration, print_)
        out.append(_score(aligned[picture], registration, count))
    return out


def _prepare(luma: U8, registration: Registration, print_: Fingerprint | None) -> tuple[Aligned, C64] | None:
    found = align(luma, registration, print_)
    return (found, spectrum(found)) if found is not None else None


def _score(prepared: tuple[Aligned, C64] | None, registration: Registration, hypotheses: int) -> Detection:
    if prepared is None:
        return Detection(False, 1.0, None, None)
    aligned, observed = prepared
    tail = 0.5 * erfc(statistic(observed, registration.key, aligned.size) / sqrt(2.0))
    p_value = min(1.0, hypotheses * max(tail, sys.float_info.min))
    return Detection(p_value <= MAX_P, p_value, None, aligned.transform)


def statistic(observed: C64, key: bytes, size: tuple[int, int]) -> float:
    """<s, x> / |x|: N(0, 1) for any `observed` that is independent of the key."""
    norm = float(np.sqrt(np.sum(np.abs(observed.astype(np.complex128)) ** 2)))
    if norm <= 0:
        return 0.0
    return float(np.real(np.vdot(coefficients(key, size).astype(np.complex128), observed))) / norm


def spectrum(aligned: Aligned) -> C64:
    """What is left of the query without the picture, weighted for correlation: one number for each coefficient of the band."""
    left = residual(aligned)
    where = band(aligned.size)
    raw = np.asarray(np.fft.rfft2(left)[where.rows, where.columns], np.complex64)
    return np.asarray(raw * where.amplitude * _whiten(raw, where), np.complex64)


def residual(aligned: Aligned) -> F32:
    """The query less the picture with its local brightness and contrast fitted, weighted by expected mark over noise (H x W)."""
    mask = aligned.mask
    share = np.maximum(_mean(mask), 1e-3)
    x, y = aligned.original * mask, aligned.query * mask
    mx, my = _mean(x) / share, _mean(y) / share
    var = np.maximum(_mean(x * x) / share - mx * mx, 0)
    cov = _mean(x * y) / share - mx * my
    gain = np.clip((cov + 4.0) / (var + 4.0), 0.0, 2.5)
    left = (aligned.query - my - gain * (aligned.original - mx)) * mask
    noise = _mean(np.asarray(left * left, np.float32)) / share
    weight = strength(aligned.original) / (noise + 1.0)
    edge = cv2.GaussianBlur(cv2.erode(mask, np.ones((9, 9), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0), (0, 0), 2)
    return np.asarray(left * weight * edge, np.float32)


def _mean(image: F32) -> F32:
    return np.asarray(cv2.boxFilter(image, -1, (_WINDOW, _WINDOW), borderType=cv2.BORDER_REFLECT), np.float32)


def _whiten(raw: C64, where: Band) -> F32:
    """1 / power of the residual's spectrum, by rings: where the picture's remains are loud, they count less."""
    width, height = where.size
    fy, fx = np.fft.fftfreq(height)[where.rows], np.fft.rfftfreq(width)[where.columns]
    radius = np.hypot(fx, fy)
    ring = (radius / radius.max() * (_RINGS - 1e-6)).astype(int)
    power = np.bincount(ring, np.abs(raw) ** 2, _RINGS) / np.maximum(np.bincount(ring, minlength=_RINGS), 1)
    return np.asarray(1 / np.maximum(power[ring], 1e-12), np.float32)
