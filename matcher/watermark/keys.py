"""Keys, and the pattern that a key draws.

The pattern is Gaussian noise in a band of frequencies of a canonical grid, with an amplitude that falls with the frequency: what is left of
it after shrinking and hard compression are its low frequencies. Its coefficients come from SHAKE-256 of the key: who lacks the key cannot
tell them from noise. A passphrase is mixed into the key by scrypt (RFC 7914).
"""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from matcher.pixels import F32, fit

GRID: Final = 1024
KEY_BYTES: Final = 32
SCHEME: Final = 3
"""The way of marking that a registration names: it rises with every change of the pattern that detection has to know."""
BAND: Final = (0.015, 0.2)
"""Cycles per pixel of the canonical grid."""
_SLOPE: Final = -1.1
_ENLARGED: Final = 1.6
_MULTIPLE: Final = 8
_SCRYPT_COST: Final = 1 << 14

C64 = npt.NDArray[np.complex64]


def new_key() -> bytes:
    """A key from the operating system."""
    return secrets.token_bytes(KEY_BYTES)


def secret_key(key: bytes, secret: str) -> bytes:
    """The key of the pattern where marking took a passphrase: 32 bytes, of 50 ms and 16 MiB. Raises ValueError for an empty one."""
    if not secret:
        raise ValueError("a passphrase has at least one character")
    # one passphrase has several spellings in Unicode, and which is typed depends on the system
    phrase = unicodedata.normalize("NFC", secret).encode()
    return hashlib.scrypt(phrase, salt=key, n=_SCRYPT_COST, r=8, p=1, maxmem=64 << 20, dklen=KEY_BYTES)


def grid(width: int, height: int, scheme: int = SCHEME) -> tuple[int, int]:
    """(width, height) of the canonical grid of a picture: its long side is `GRID`; of a small picture less, so that the whole band is below
    what its pixels can show. Both are multiples of 8, which costs its pixels a little of their squareness and makes transforms fast.
    Scheme 1 knew neither."""
    if scheme == 1:
        return fit(width, height, GRID)
    sides = fit(width, height, min(GRID, round(_ENLARGED * max(width, height))))
    across, down = (max(1, round(side / _MULTIPLE)) * _MULTIPLE for side in sides)
    return across, down


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of a grid with half the pixels each way, which show the whole band, too."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """The coefficients of an rfft2 on a grid that carry the mark: flat `rows`, `columns`, and the pattern's `amplitude` at each."""

    size: tuple[int, int]
    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    amplitude: F32

    def of(self, image: F32) -> C64:
        """The coefficients of an image (H x W) that lies on the grid, with its pixels or half as many each way."""
        rows, turned = _sampled(self.size, (image.shape[1], image.shape[0]))
        across = np.fft.rfft(image, axis=1)[:, : self._columns]
        return np.asarray(np.fft.fft(across, axis=0)[rows, self.columns] * turned, np.complex64)

    def image(self, coefficients: C64) -> F32:
        """The image (H x W) that has these coefficients, and no others."""
        across = np.zeros((self.size[1], self._columns), np.complex64)
        across[self.rows, self.columns] = coefficients
        return np.asarray(np.fft.irfft(np.fft.ifft(across, axis=0), self.size[0], axis=1), np.float32)

    @property
    def _columns(self) -> int:
        """So many columns hold the band: the others need no transform."""
        return int(self.columns.max(initial=0)) + 1


@lru_cache(16)
def band(size: tuple[int, int]) -> Band:
    """The band of a grid of (width, height) `size`."""
    width, height = size
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    radius = np.hypot(fx, fy)
    # the first and last column hold conjugate pairs: leaving them out keeps every coefficient independent
    inside = (radius >= BAND[0]) & (radius <= BAND[1]) & (fx > 0) & (fx < 0.5)
    rows, columns = np.nonzero(inside)
    return Band(size, rows, columns, np.asarray((radius[inside] / BAND[0]) ** _SLOPE, np.float32))


@lru_cache(16)
def _sampled(size: tuple[int, int], pixels: tuple[int, int]) -> tuple[npt.NDArray[np.intp], C64]:
    """Of the band of a grid of that `size`, seen with fewer `pixels`: the rows of its coefficients, and what turns them back, as the middle
    of a larger pixel lies farther from the corner."""
    where = band(size)
    rows = np.where(where.rows < size[1] - where.rows, where.rows, where.rows - size[1])
    moved = where.columns * (1 / size[0] - 1 / pixels[0]) + rows * (1 / size[1] - 1 / pixels[1])
    return rows, np.asarray(np.exp(1j * np.pi * moved), np.complex64)


def coefficients(key: bytes, size: tuple[int, int]) -> C64:
    """The key's complex Gaussian numbers for each coefficient of the grid's band: real and imaginary part N(0, 1), independent."""
    count = len(band(size).rows)
    stream = hashlib.shake_256(b"filigrane pattern 1" + size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big") + key).digest(8 * count)
    words = np.frombuffer(stream, "<u4").astype(np.float32).reshape(2, count)
    uniform = (words + np.float32(0.5)) / np.float32(2.0**32)
    radius, angle = np.sqrt(-2 * np.log(uniform[0])), np.float32(2 * np.pi) * uniform[1]
    drawn = np.empty(count, np.complex64)
    drawn.real, drawn.imag = radius * np.cos(angle), radius * np.sin(angle)
    return drawn


def pattern(coefficients: C64, size: tuple[int, int]) -> F32:
    """The pattern of these coefficients on a grid of (width, height) `size`: H x W, mean 0, standard deviation 1."""
    where = band(size)
    drawn = where.image(coefficients * where.amplitude)
    return np.asarray(drawn / max(float(drawn.std()), 1e-9), np.float32)
