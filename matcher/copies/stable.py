"""Which features of a picture come back when it is copied: tried out on copies made of it.

Features are taken at up to three sizes, as small ones are all that a crop shows. Then copies are made: whole ones, smaller, compressed,
blurred, turned; and crops to a half, a quarter and a tenth of the area, all over the picture. What comes back in which copy is a
table; from it features are chosen one by one, each the one that adds most where the fewest have come back so far. So the first of them
serve whole copies and every crop, wherever it lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from matcher.copies.sift import extract
from matcher.pixels import F32, F64, U8, fit, gray_from_jpeg, jpeg, resized_to, scaling

Bool = npt.NDArray[np.bool_]

_SIZES: Final = (1, 2, 4)
"""Long sides of the pictures that features are taken on, in those of a query's; and how many are taken on each."""
_TAKEN: Final = (300, 600, 1200)
_LARGER: Final = 1.4
_ASKED: Final = 300

_PLACE: Final = 2.0
_ZOOM: Final = 0.4
_TURN: Final = 25.0
_ALIKE: Final = 160.0
_OWN: Final = 2.0
_LENGTH: Final = 512.0
_REPEATED: Final = 110.0
_ENOUGH: Final = 4.0
_LEAST: Final = 1.8


class Features(NamedTuple):
    """`points`: n x 4 (x, y, diameter, angle in degrees), `descriptors`: n x 128."""

    points: F32
    descriptors: U8

    def taken(self, which: npt.NDArray[np.int64]) -> Features:
        return Features(self.points[which], self.descriptors[which])


class Copy(NamedTuple):
    """`image`: a gray copy at a query's size; `transform`: 3 x 3, from the pixels of the small picture to those of the copy."""

    image: U8
    transform: F64


def stable_features(image: U8, small: tuple[int, int], most: int) -> Features:
    """At most `most` features of an H x W picture, in pixels of one of size `small` (width, height): those that serve most, first.

    A descriptor is the mean of what the feature looked like wherever it came back.
    """
    found = _distinct(_at_sizes(image, small))
    if not len(found.points):
        return found
    returns, sums = [], _OWN * found.descriptors.astype(np.float32)
    for copy in copies(image, small):
        rows, descriptors = _comes_back(found, copy)
        np.add.at(sums, rows, descriptors)
        returns.append(np.bincount(rows, minlength=len(found.points)) > 0)
    order = _greedy(np.stack(returns, axis=1), _repeats(found), most)
    return Features(found.points[order], _mean(sums[order]))


# ---- candidates


def _at_sizes(image: U8, small: tuple[int, int]) -> Features:
    """Features at every size that the picture has, in pixels of the small one."""
    side, parts, last = max(small), [], 0.0
    for factor, count in zip(_SIZES, _TAKEN, strict=True):
        long = side if factor == 1 else min(factor * side, max(image.shape))
        if long < _LARGER * last:
            break
        seen = resized_to(image, fit(*small, long) if factor > 1 else small)
        points, descriptors = extract(seen, count)
        parts.append(Features(_moved(points, scaling((seen.shape[1], seen.shape[0]), small)), descriptors))
        last = long
    return Features(np.concatenate([part.points for part in parts]), np.concatenate([part.descriptors for part in parts]))


def _moved(points: F32, transform: F64) -> F32:
    """Points under a similarity (3 x 3)."""
    where = np.concatenate([points[:, :2], np.ones((len(points), 1))], axis=1) @ transform[:2].T
    zoom, turn = np.sqrt(abs(np.linalg.det(transform[:2, :2]))), np.rad2deg(np.arctan2(transform[1, 0], transform[0, 0]))
    return np.stack([*where.T, points[:, 2] * zoom, (points[:, 3] + turn) % 360.0], axis=1).astype(np.float32)


def _distinct(found: Features) -> Features:
    """Without those that an earlier one repeats: the same place, size and direction, seen at another size of the picture."""
    points = found.points
    reach = 0.3 * points[:, 2]
    first, second = np.nonzero(_squares(points, points) < np.minimum(reach[:, None], reach) ** 2)
    repeats = (first < second) & _fit(points[first], points[second], 0.3, 20.0)
    return found.taken(np.setdiff1d(np.arange(len(points)), second[repeats]))


def _squares(a: F32, b: F32) -> F32:
    """Squared distances between the places of points, each with each."""
    x, y = a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]
    return np.asarray(x * x + y * y, np.float32)


def _fit(a: F32, b: F32, octaves: float, degrees: float) -> Bool:
    """Whether sizes and directions of points agree, pair by pair."""
    turn = np.abs((a[:, 3] - b[:, 3] + 180.0) % 360.0 - 180.0)
    return np.asarray((np.abs(np.log2(a[:, 2] / b[:, 2])) < octaves) & (turn < degrees), np.bool_)


# ---- copies


class _Change(NamedTuple):
    """`box`: left, top and side of what is kept, in shares of the picture; then turned (degrees), shrunk, blurred (sigma, pixels), with
    noise, JPEG, and gamma."""

    box: tuple[float, float, float] = (0.0, 0.0, 1.0)
    turn: float = 0.0
    shrink: float = 1.0
    blur: float = 0.0
    noise: float = 0.0
    quality: int = 0
    gamma: float = 1.0


_WHOLE: Final = (
    _Change(),
    _Change(shrink=0.5),
    _Change(shrink=0.35, quality=60),
    _Change(quality=20),
    _Change(blur=1.5),
    _Change(noise=15.0),
    _Change(gamma=2.0, quality=50),
    _Change(gamma=0.5, noise=5.0),
    _Change(turn=12.0),
    _Change(turn=38.0),
    _Change(turn=-70.0, quality=50),
    _Change(box=(-0.2, -0.2, 1.4)),
)
_HARM: Final = (
    _Change(),
    _Change(quality=40),
    _Change(blur=0.8),
    _Change(turn=5.0),
    _Change(noise=8.0),
    _Change(gamma=1.6),
    _Change(shrink=0.6),
)


def _changes() -> Iterator[_Change]:
    yield from _WHOLE
    crops = [(share**0.5, rows) for share, rows in ((0.5, 2), (0.25, 4), (0.1, 6))]
    boxes = [(x, y, side) for side, rows in crops for y in np.linspace(0, 1 - side, rows) for x in np.linspace(0, 1 - side, rows)]
    for i, box in enumerate(boxes):
        yield _HARM[i % len(_HARM)]._replace(box=box)


def copies(image: U8, small: tuple[int, int]) -> Iterator[Copy]:
    """The picture (H x W) as it may be found, at the size of a query; `small`: (width, height) of the picture at that size."""
    sizes = [resized_to(image, small)]
    while max(sizes[-1].shape) < min(max(image.shape), _SIZES[-1] * max(small)):
        sizes.append(resized_to(image, fit(*small, min(2 * max(sizes[-1].shape), max(image.shape)))))
    for seed, change in enumerate(_changes()):
        transform, size = _placed(small, change)
        yield Copy(_harmed(_warped(sizes, small, transform, size), change, seed), transform)


def _placed(small: tuple[int, int], change: _Change) -> tuple[F64, tuple[int, int]]:
    """3 x 3 from the small picture's pixels to the copy's, and the copy's (width, height)."""
    left, top, share = change.box
    width, height = small[0] * share, small[1] * share
    cos, sin = np.cos(np.deg2rad(change.turn)), np.sin(np.deg2rad(change.turn))
    shown = (width * abs(cos) + height * abs(sin), width * abs(sin) + height * abs(cos))
    zoom = max(small) / max(shown)
    middle = np.array([left * small[0] + width / 2, top * small[1] + height / 2])
    turn = zoom * np.array([[cos, -sin], [sin, cos]])
    # between edges, not centres, of pixels: these are half a pixel further in
    shift = zoom * np.array(shown) / 2 - turn @ (middle - 0.5) - 0.5
    size = (max(1, round(zoom * shown[0])), max(1, round(zoom * shown[1])))
    return np.block([[turn, shift[:, None]], [np.array([[0.0, 0.0, 1.0]])]]), size


def _warped(sizes: list[U8], small: tuple[int, int], transform: F64, size: tuple[int, int]) -> U8:
    """From the smallest of the picture's sizes that has all the detail that the copy shows; white around it."""
    zoom = np.sqrt(np.linalg.det(transform[:2, :2]))
    source = next((each for each in sizes if max(each.shape) >= 0.95 * zoom * max(small)), sizes[-1])
    matrix = transform @ scaling((source.shape[1], source.shape[0]), small)
    return np.asarray(cv2.warpAffine(source, matrix[:2], size, flags=cv2.INTER_LINEAR, borderValue=255), np.uint8)


def _harmed(image: U8, change: _Change, seed: int) -> U8:
    if change.shrink < 1:
        height, width = image.shape
        image = resized_to(resized_to(image, fit(width, height, round(change.shrink * max(width, height)))), (width, height))
    if change.blur:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), change.blur), np.uint8)
    if change.gamma != 1:
        image = (255 * (np.arange(256) / 255) ** change.gamma).round().astype(np.uint8)[image]
    if change.noise:
        noise = np.random.default_rng(seed).normal(0, change.noise, image.shape).astype(np.float32)
        image = (image + noise).clip(0, 255).astype(np.uint8)
    return gray_from_jpeg(jpeg(image, change.quality)) if change.quality else image


# ---- choice


def _comes_back(found: Features, copy: Copy) -> tuple[npt.NDArray[np.int64], U8]:
    """Which features (rows, some of them twice) are found in the copy, at their place, with their size, direction and descriptor; and
    the descriptors that they have there."""
    moved = _moved(found.points, copy.transform)
    height, width = copy.image.shape
    shown = np.flatnonzero((moved[:, 0] > 0) & (moved[:, 0] < width) & (moved[:, 1] > 0) & (moved[:, 1] < height) & (moved[:, 2] > _LEAST))
    points, descriptors = extract(copy.image, _ASKED)
    here = moved[shown]
    rows, columns = np.nonzero(_squares(here, points) < _PLACE**2)
    step = found.descriptors[shown[rows]].astype(np.float32) - descriptors[columns]
    same = _fit(here[rows], points[columns], _ZOOM, _TURN) & ((step * step).sum(axis=1) < _ALIKE**2)
    return shown[rows[same]], descriptors[columns[same]]


def _mean(sums: F32) -> U8:
    """Descriptors (n x 128) in the direction of the sums, as long as those of `extract`."""
    length = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
    return np.asarray((sums / length * _LENGTH).round().clip(0, 255), np.uint8)


def _repeats(found: Features) -> Bool:
    """Which features look alike at different places, as letters and tiles do."""
    values = found.descriptors.astype(np.float32)
    squares = (values * values).sum(axis=1)
    alike = squares[:, None] + squares - 2 * values @ values.T < _REPEATED**2
    return np.asarray(alike & (_squares(found.points, found.points) > found.points[:, 2] ** 2), np.bool_)


def _greedy(returns: Bool, repeats: Bool, most: int) -> npt.NDArray[np.int64]:
    """Features (rows of `returns`, n x copies) one by one, as long as they come back at all: each adds most to the copies in which the
    fewest have come back, and what looks like one that is taken already counts half."""
    gain, came, free = returns.astype(np.float64), np.zeros(returns.shape[1]), np.ones(len(returns))
    order: list[int] = []
    while len(order) < min(most, int(returns.any(axis=1).sum())):
        best = int(((gain @ (1 / (_ENOUGH + came))) * free).argmax())
        order.append(best)
        came += gain[best]
        free[repeats[best]] *= 0.5
        free[best] = 0
    return np.array(order, np.int64)
