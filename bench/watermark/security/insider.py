"""Who holds the registration, opened: the key and the small picture of the original.

A secret keeps the pattern from him, not the small picture.
"""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from typing import Final

import cv2
import numpy as np
from PIL import Image

from bench.copies.sets import Picture
from bench.watermark.methods import key_of
from bench.watermark.security.case import UNFOUND, Case, Outcome, case, least
from matcher.pixels import F32, U8
from matcher.watermark.embed import add, draw, embed
from matcher.watermark.keys import secret_key

_PHRASE: Final = "a passphrase"
_RESOLVED: Final = 0.45
"""Cycles per pixel of a small picture that are still the original's."""


def attack(picture: Picture) -> list[Outcome]:
    owned = case(picture)
    return [
        owned.outcome("nothing", owned.marked),
        _with_a_detector(owned),
        owned.outcome("the change of a guessed key is taken off", without(owned.marked, key_of(f"guessed for {owned.name}"))),
        owned.outcome("what the small picture shows is put back", restored(owned)),
        _with_secret(owned),
    ]


def _with_secret(owned: Case) -> Outcome:
    """Marked with a passphrase, which he does not have."""
    key = owned.registration.key
    marked, registration = embed(owned.original, key=key, secret=_PHRASE)
    meant = replace(registration, key=secret_key(key, _PHRASE), secret=False)
    protected = Case(owned.name, owned.original, marked, meant)
    return protected.outcome("with a secret: the change of the registration's key is taken off", without(marked, key))


def _with_a_detector(owned: Case) -> Outcome:
    """Who has the registration may look how much is left."""
    change = draw(owned.marked, key=owned.registration.key)[0]
    times = least(lambda times: owned.z(add(owned.marked, np.float32(-times) * change)) < UNFOUND, 2.0)
    return owned.outcome("the key's change is taken off, as much as it takes", add(owned.marked, np.float32(-times) * change))


def without(marked: U8, key: bytes) -> U8:
    """What the key would add to the marked copy is taken off: the pattern's strength is nearly the same again."""
    return add(marked, -draw(marked, key=key)[0])


def restored(owned: Case) -> U8:
    """All that the small picture resolves is taken from it, the finer detail from the marked copy."""
    with Image.open(BytesIO(owned.registration.small)) as opened:
        small = np.asarray(opened.convert("RGB"), np.float32)
    height, width = owned.marked.shape[:2]
    original = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    coarse = _coarse(original - owned.marked, _RESOLVED * min(1.0, small.shape[1] / width))
    return np.asarray(np.clip(np.rint(owned.marked + coarse), 0, 255), np.uint8)


def _coarse(image: F32, most: float) -> F32:
    """What lies below so many cycles per pixel (H x W x 3)."""
    height, width = image.shape[:2]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    spectrum = np.fft.rfft2(image, axes=(0, 1)) * (radius <= most)[..., None]
    return np.asarray(np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1)), np.float32)
