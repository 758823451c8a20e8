"""Plain copies: is one picture the other, whole, but for its size, its quality, its tones and its frame?

Local features find nothing in clouds, soft patches and large plain shapes. There the pictures themselves are laid over each other: the
query is explained by the registered picture's tones (brightness, contrast, filters) and dark corners, with least squares on a coarse
square; how well other pictures would explain it by chance follows from how many independent details both have. Then each block of a
finer square has to be explained, too: with another word below the same emblem it is another picture. What has one centre or one
direction, as gradients, vignettes and horizons have, is the same in many pictures but for its tones: there the gray levels have to be
equal; and what a quadratic surface explains, any straight gradient, is never told from others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle
from math import lgamma, log, log10
from typing import Final, NamedTuple

import cv2
import numpy as np

from matcher.copies.dimmed import undimmed
from matcher.copies.features import MIRROR, Fingerprint, thumbnail_of
from matcher.copies.likeness import Likeness
from matcher.copies.look import NEAR, Shares, inner, look
from matcher.pixels import F32, F64, U8

COARSE: Final = 32
_SOFT: Final = 0.7
_BLOCK: Final = 8
_STEP: Final = 4
_LEAST: Final = 1.5
"""Gray levels that a picture deviates from a quadratic surface, at least."""
_LEAST_SCORE: Final = 2.0
_EQUAL: Final = 2.0
"""Gray levels by which equal pictures differ at most."""
_POPULAR: Final = 2.0
"""Powers of ten by which glows are alike more often than independent details would be: of 180 around much the same centres two pairs."""
_LEFT: Final = 0.1
"""Share of the coarse query that may stay unexplained."""
_LEFT_BACK: Final = 0.15
"""The same of the registered picture, by the query: a filter may have taken some of it."""
_ONE_CENTRE: Final = 0.05
_EXACT: Final = 1e-4
"""Share that JPEG leaves unexplained in any case."""
_FITTED: Final = 64
"""Every so many-th pixel is enough to find a few numbers from: `_FITTED` in a row."""
_RIDGE: Final = 1e-6
_KNOTS: Final = (-0.6, -0.2, 0.2, 0.6)
_WHOLE: Final[Shares] = (0.0, 1.0, 0.0, 1.0)


class Check(NamedTuple):
    """Blocks on a square of `side` pixels: what deviates less than `noise` gray levels is no detail; at most the share `left` of any block
    may stay unexplained."""

    side: int
    noise: float
    left: float


CHECKS: Final = (Check(128, 4.0, 0.1), Check(256, 8.0, 0.3))


@dataclass(frozen=True, slots=True, eq=False)
class Plain:
    """A plain copy. `score`: -log10 of the expected number of false ones; `transform`: 3 x 3, registered -> query (`flipped`: its mirror),
    in pixels of the originals; `left`: n, the share of each block with details that is not explained."""

    score: float
    transform: F64
    flipped: bool
    left: F32

    @property
    def likeness(self) -> Likeness:
        """In place of a block's correlation its multiple correlation with everything that explains it."""
        median, upper = np.quantile(np.sqrt(1 - self.left), [0.5, 0.75]) if len(self.left) else (1.0, 1.0)
        return Likeness(len(self.left), 1.0, float(median), float(upper), slip=0.0, cover=1.0, graphic=False)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A part of a thumbnail, without plain borders or the whole. `box`: which; `shown`: its pixels; `coarse`: `COARSE` x `COARSE` gray
    levels; `uneven`: as a vector, what no quadratic surface explains of them."""

    box: Shares
    shown: U8
    coarse: F32
    uneven: F32

    @classmethod
    def of(cls, thumbnail: U8, box: Shares) -> View:
        height, width = thumbnail.shape
        top, left = min(round(box[0] * height), height - 1), min(round(box[2] * width), width - 1)
        shown = thumbnail[top : max(round(box[1] * height), top + 1), left : max(round(box[3] * width), left + 1)]
        coarse = _square(shown, COARSE)
        return cls(box, shown, coarse, _off(coarse.ravel()))

    @property
    def flipped(self) -> View:
        top, bottom, left, right = self.box
        shown, uneven = self.shown[:, ::-1], self.uneven.reshape(COARSE, COARSE)[:, ::-1].ravel()
        return View((top, bottom, 1 - right, 1 - left), np.ascontiguousarray(shown), self.coarse[:, ::-1], uneven)

    def square(self, side: int) -> F32:
        return _square(self.shown, side)


@lru_cache(32)
def looks(query: Fingerprint) -> tuple[U8, ...]:
    """What to look a picture up by: its look; where it has too little texture for a vote also that without dark corners."""
    if not len(query.look):
        return ()
    lit = _lit(query)
    return (query.look,) if lit is None else (query.look, look(lit))


def _tells(print_: Fingerprint) -> bool:
    """Whether the picture can be told from others as a whole."""
    return any(view.uneven.std() >= _LEAST for view in _views(print_))


def note(print_: Fingerprint) -> str | None:
    """What whoever registers it should know; None where all is well."""
    if not len(print_.look):
        return "no texture: copies cannot be told apart, so none will be found"
    if print_.textured:
        return None
    if not _tells(print_):
        return "a plain gradient: copies cannot be told from other pictures, so none will be found"
    return "too little texture: only plain copies will be found"


def same(registered: Fingerprint, query: Fingerprint, tests: int = 1, *, mirrored: bool | None = None) -> Plain | None:
    """Whether the query, or its mirror, is a plain copy of a registered picture: looked at only where they look alike.

    `tests`, `mirrored`: as of `verdict.judge`. Raises FingerprintInvalid.
    """
    forms = [flipped for flipped in (False, True) if mirrored in (None, flipped) and _alike(registered, query, flipped=flipped)]
    return next((plain for flipped in forms for plain in _copies(registered, query, flipped=flipped, tests=2 * tests)), None)


def _alike(registered: Fingerprint, query: Fingerprint, *, flipped: bool) -> bool:
    if not len(registered.look):
        return False
    known = registered.look.astype(np.float32)
    return any(float(np.linalg.norm((one[MIRROR] if flipped else one) - known)) <= NEAR for one in looks(query))


def _copies(registered: Fingerprint, query: Fingerprint, *, flipped: bool, tests: int) -> Iterator[Plain]:
    seen_at = (*_views(query), *_lit_views(query))
    for known, seen in dict.fromkeys(zip(cycle(_views(registered)), seen_at, strict=False)):
        shown = seen.flipped if flipped else seen
        score = -chance(known, shown) - log10(max(1, tests))
        left = _explained(known, shown) if score > _LEAST_SCORE else None
        if left is not None:
            yield Plain(score, _placed(registered, known.box, query, shown.box), flipped, left)


def _explained(known: View, shown: View) -> F32 | None:
    """What the first check leaves; None where one fails."""
    first = None
    for check in CHECKS:
        left = unexplained(known, shown, check)
        if left.max(initial=0) > check.left:
            return None
        first = left if first is None else first
    return first


@lru_cache(32)
def _views(print_: Fingerprint) -> tuple[View, View]:
    """Without plain borders and whole, since under another contrast a border ends elsewhere; twice the same where it has none."""
    return _both(thumbnail_of(print_))


@lru_cache(8)
def _lit_views(query: Fingerprint) -> tuple[View, ...]:
    """The same without dark corners, where there are any."""
    lit = _lit(query)
    return () if lit is None else _both(lit)


def _both(thumbnail: U8) -> tuple[View, View]:
    bare = View.of(thumbnail, inner(thumbnail))
    return bare, bare if bare.box == _WHOLE else View.of(thumbnail, _WHOLE)


@lru_cache(8)
def _lit(query: Fingerprint) -> U8 | None:
    return None if query.textured else undimmed(thumbnail_of(query))


def chance(registered: View, query: View) -> float:
    """log10 of how probable it is that a picture which has nothing to do with the query explains it as well as the registered one; 0 where
    it is not explained.

    The share that k columns leave unexplained of n independent Gaussian details has a beta distribution, whose lower tail is bounded. A
    model, not a count: pictures are no Gaussian noise, drawn ones least of all. docs/copies.md says how it was compared.
    """
    if min(registered.uneven.std(), query.uneven.std()) < _LEAST:
        return 0.0
    left = _left(registered.coarse, query.uneven)
    if left > _LEFT or _left(query.coarse, registered.uneven) > _LEFT_BACK:
        return 0.0
    if min(one_centre(registered), one_centre(query)) < _ONE_CENTRE:
        return _equal(registered.coarse, query.coarse)
    return _tail(left, 3, min(details(registered.uneven), details(query.uneven)))


def _equal(registered: F32, query: F32) -> float:
    apart, middle = query - registered, query - query.mean()
    left = float((apart * apart).sum() / (middle * middle).sum())
    return min(0.0, _POPULAR + _tail(left, 1, details(middle.ravel()))) if np.abs(apart).max() <= _EQUAL else 0.0


def _tail(left: float, columns: int, count: float) -> float:
    """log10 of a bound on the beta distribution's lower tail: of a share below `left`."""
    a, b = columns / 2, (count - columns) / 2
    if b <= 0:
        return 0.0
    return min(0.0, (b * log(max(left, _EXACT)) - log(b) + lgamma(a + b) - lgamma(a) - lgamma(b)) / log(10))


def details(uneven: F32) -> float:
    """How many independent waves a coarse picture is made of: the participation ratio of its power spectrum, doubled since the spectrum of
    one picture scatters about the mean as exponentially distributed values do."""
    power = cv2.dct(uneven.reshape(COARSE, COARSE)) ** 2
    return float(2 * power.sum() ** 2 / (power * power).sum())


def _left(coarse: F32, other: F32) -> float:
    """Share of `other`, uneven, that the tones of a picture leave unexplained."""
    z = coarse.ravel() / 128 - 1
    tones = _off(np.stack([z, z * z, z * _FALL], 1))
    rest = other - tones @ _solved(tones, other)
    return float(rest @ rest / (other @ other))


def unexplained(registered: View, query: View, check: Check = CHECKS[0]) -> F32:
    """Of each block in which one of both has details, the share of the query that the registered picture leaves unexplained."""
    known, fine = registered.square(check.side), query.square(check.side)
    before, after = _spread(known), _spread(fine)
    gain = (after.sum() + 1) / (before.sum() + 1)
    left = _boxed(_rest(known, fine) ** 2) / (np.maximum(before * gain, after) + check.noise**2)
    return np.asarray(left[np.maximum(before, after) > check.noise**2], np.float32)


def _rest(known: F32, fine: F32) -> F32:
    """What of `fine` no tone curve, dark corners, small shift, stretch or blur of `known` explains."""
    side = len(known)
    (x, y), z = _grid(side), known / 128 - 1
    down, right = np.gradient(z)
    bends = (np.maximum(z - knot, 0) for knot in _KNOTS)
    moves = (right, down, x * right, y * down, cv2.Laplacian(z, cv2.CV_32F, borderType=cv2.BORDER_REPLICATE))
    changes = np.stack([z, *bends, z * (x * x + y * y), *moves], -1)
    columns = np.concatenate([_surface(side).reshape(side, side, -1), changes], -1)
    few = slice(None, None, side // _FITTED)
    shares = _solved(columns[few, few].reshape(_FITTED**2, -1), fine[few, few].ravel())
    return np.asarray(fine - columns @ shares, np.float32)


def _solved(columns: F32, values: F32) -> F32:
    """Least squares; columns may depend on each other."""
    both = np.column_stack([columns, values]).astype(np.float64)
    power = both.T @ both
    known = power[:-1, :-1]
    known[np.diag_indices_from(known)] *= 1 + _RIDGE
    known[np.diag_indices_from(known)] += _RIDGE
    return np.linalg.solve(known, power[:-1, -1]).astype(np.float32)


def one_centre(view: View) -> float:
    """Share of the picture's gradients, squared, that does not point to or from one centre, however far away it is and whatever ellipse is
    around it: 0 for gradients, vignettes and horizons, half for a picture without order."""
    down, right = (slope.ravel() for slope in np.gradient(view.coarse))
    x, y, one = *(at.ravel() for at in _grid(COARSE)), np.ones(COARSE**2, np.float32)
    across = np.stack([right * y, -right, -down * x, down], 1)
    force = np.hypot(right, down)[:, None]
    vertical, horizontal = force * np.stack([y, -one], 1), force * np.stack([x, -one], 1)
    power = np.zeros((4, 4))
    power[:2, :2], power[2:, 2:] = vertical.T @ vertical, horizontal.T @ horizontal
    power += 1e-6 * (1 + np.trace(power)) * np.eye(4)
    whiten = np.linalg.inv(np.linalg.cholesky(power))
    return float(np.linalg.eigvalsh(whiten @ (across.T @ across).astype(float) @ whiten.T)[0])


def _placed(registered: Fingerprint, known: Shares, query: Fingerprint, shown: Shares) -> F64:
    """3 x 3: the registered picture's box onto the query's, in pixels."""
    return _to_pixels(query, shown) @ np.linalg.inv(_to_pixels(registered, known))


def _to_pixels(print_: Fingerprint, box: Shares) -> F64:
    """3 x 3: from shares of the box to pixels, whose middles are whole numbers."""
    top, bottom, left, right = box
    width, height = print_.width, print_.height
    return np.array([[(right - left) * width, 0, left * width - 0.5], [0, (bottom - top) * height, top * height - 0.5], [0, 0, 1]])


def _square(shown: U8, side: int) -> F32:
    small = cv2.resize(shown, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), _SOFT, borderType=cv2.BORDER_REPLICATE), np.float32)


def _off(columns: F32) -> F32:
    """Without what quadratic surfaces explain."""
    return np.asarray(columns - _SURFACE @ (_SURFACE.T @ columns), np.float32)


def _boxed(values: F32) -> F32:
    """Means of blocks that overlap by half."""
    means = cv2.boxFilter(values, cv2.CV_32F, (_BLOCK, _BLOCK), anchor=(0, 0), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(means[: 1 - _BLOCK : _STEP, : 1 - _BLOCK : _STEP], np.float32)


def _spread(values: F32) -> F32:
    return np.asarray(np.maximum(_boxed(values * values) - _boxed(values) ** 2, 0), np.float32)


@lru_cache(4)
def _grid(side: int) -> tuple[F32, F32]:
    at = ((np.arange(side) + 0.5) * (2 / side) - 1).astype(np.float32)
    x, y = np.meshgrid(at, at)
    return x, y


@lru_cache(4)
def _surface(side: int) -> F32:
    """Pixels x 6, orthonormal: all quadratic surfaces."""
    x, y = _grid(side)
    columns = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1).reshape(-1, 6)
    return np.asarray(np.linalg.qr(columns)[0], np.float32)


_FALL: Final = np.asarray(sum(at * at for at in _grid(COARSE)), np.float32).ravel()
_SURFACE: Final = _surface(COARSE)
