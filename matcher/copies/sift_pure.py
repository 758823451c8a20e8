"""The feature extractor in NumPy: the same sums in the same order, all float32, as native/sift.c and sift_describe.c, names too."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from matcher.copies.sift_plan import AROUND, BINS, CELLS, PLAN, SAMPLES, TURNS
from matcher.pixels import F32, U8

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

_MAX_OCTAVES: Final = 8
_TAPS: Final = [np.array(PLAN.taps[i][: PLAN.radius[i] + 1], np.float32) for i in range(PLAN.scales + 3)]
_NOISE: Final = np.array(PLAN.noise, np.float32)
_POOL: Final = np.array(PLAN.pool, np.float32)
_AROUND: Final = np.array(PLAN.around, np.float32)
_SIGMA, _FLOOR, _EDGE = np.float32(PLAN.sigma), np.float32(PLAN.floor), np.float32(PLAN.edge)
_SECOND, _MOST_NOISE = np.float32(PLAN.second), np.float32(PLAN.most_noise)
_HALF, _QUARTER = np.float32(0.5), np.float32(0.25)


class Extrema(NamedTuple):
    """Points in pixels of their octave; `scale`: levels above the octave's first; all n long."""

    x: F32
    y: F32
    scale: F32
    strength: F32
    octave: I32

    def taken(self, which: I64 | Bool) -> Extrema:
        return Extrema(self.x[which], self.y[which], self.scale[which], self.strength[which], self.octave[which])


def _joined(parts: list[Extrema]) -> Extrema:
    x, y, scale, strength = (np.concatenate([np.zeros(0, np.float32), *(part[i] for part in parts)]) for i in range(4))
    return Extrema(x, y, scale, strength, np.concatenate([np.zeros(0, np.int32), *(part.octave for part in parts)]))


class Pyramid(NamedTuple):
    """`pixels`: every level of every octave, one after the other; `start` (octaves x levels): where each begins; `width`, `height`: of each
    octave."""

    pixels: F32
    start: I64
    width: I32
    height: I32


def extract(image: U8, count: int) -> tuple[F32, U8]:
    """As `sift.extract`."""
    octaves, found = _scan(image)
    if not len(found.x):
        return np.zeros((0, 4), np.float32), np.zeros((0, CELLS * CELLS * BINS), np.uint8)
    pyramid = _laid_out(octaves)
    chosen = found.taken(_choose(found, image.shape[1], image.shape[0], count))
    sigma = np.asarray(_SIGMA * np.exp2(chosen.scale.astype(np.float64) / PLAN.scales), np.float32)
    owner, turn = _directions(pyramid, chosen, sigma)
    owner, turn = owner[:count], turn[:count]
    points = chosen.taken(owner)
    angle, step = turn.astype(np.float64) * (2 * np.pi), np.float32(PLAN.step) * sigma[owner]
    along, across = (step * side(angle).astype(np.float32) for side in (np.cos, np.sin))
    zoom = (1 << points.octave).astype(np.float32)
    shape = np.stack([points.x * zoom, points.y * zoom, 2 * sigma[owner] * zoom, turn * np.float32(360)], axis=1)
    return shape, _describe(pyramid, points, along, across)


# ---- scale space


def _scan(image: U8) -> tuple[list[F32], Extrema]:
    """The octaves (levels x height x width each), and the extrema in all of them."""
    octaves: list[F32] = []
    found: list[Extrema] = []
    first, noise = image.astype(np.float32), np.float32(0)
    while min(first.shape) >= PLAN.least and len(octaves) < _MAX_OCTAVES:
        levels = [_blur(first, _TAPS[0]) if not octaves else first]
        for taps in _TAPS[1:]:
            levels.append(_blur(levels[-1], taps))
        octave = np.stack(levels)
        dogs = octave[1:] - octave[:-1]
        if not octaves:
            noise = min(_noise_of(dogs[0]), _MOST_NOISE)
        found.append(_find(dogs, len(octaves), noise / np.float32(1 << len(octaves))))
        octaves.append(octave)
        first = octave[PLAN.scales, ::2, ::2]
    return octaves, _joined(found)


def _blur(image: F32, taps: F32) -> F32:
    return _blur_rows(_blur_rows(image, taps).T, taps).T


def _blur_rows(image: F32, taps: F32) -> F32:
    radius, height = len(taps) - 1, len(image)
    wide = np.pad(image, ((radius, radius), (0, 0)), mode="reflect")
    total = taps[0] * image
    for j in range(1, radius + 1):
        total = total + taps[j] * (wide[radius - j : radius - j + height] + wide[radius + j : radius + j + height])
    return np.ascontiguousarray(total)


def _noise_of(dog: F32) -> np.float32:
    """Noise of the finest difference of Gaussians: its median absolute value, as a standard deviation."""
    values = np.minimum(np.abs(dog[::4, ::2]) * np.float32(64), np.float32(255)).astype(int).ravel()
    sums = np.cumsum(np.bincount(values, minlength=256))
    middle = int(np.argmax(2 * sums >= len(values)))
    return np.float32(np.float32(middle + 0.5) * np.float32(1 / (64 * 0.6745)))


# ---- extrema


def _find(dogs: F32, octave: int, noise: np.float32) -> Extrema:
    return _joined([_find_level(dogs, level, octave, max(_FLOOR, noise * _NOISE[level])) for level in range(1, PLAN.scales + 1)])


def _find_level(dogs: F32, level: int, octave: int, least: np.float32) -> Extrema:
    border = PLAN.border
    inner = dogs[level, border:-border, border:-border]
    y, x = np.nonzero(np.abs(inner) > np.float32(0.8) * least)
    y, x = y + border, x + border
    near = dogs[level - 1 : level + 2][:, y[:, None] + _NEAR_Y, x[:, None] + _NEAR_X]  # 3 x n x 9
    sign = np.where(near[1, :, 4] > 0, np.float32(1), np.float32(-1))
    cube = (sign[:, None] * near).transpose(1, 0, 2).reshape(-1, 27)
    extreme = cube[:, 13] > np.delete(cube, 13, axis=1).max(axis=1, initial=-np.inf)
    return _refined(near[:, extreme], x[extreme], y[extreme], level, octave, least)


_NEAR_Y: Final = np.repeat([-1, 0, 1], 3)
_NEAR_X: Final = np.tile([-1, 0, 1], 3)


def _refined(near: F32, x: I64, y: I64, level: int, octave: int, least: np.float32) -> Extrema:
    """Extrema of the parabolas through the neighbours (3 x n x 9) of n pixels, of those that are a point."""
    below, here, above = (part.T for part in near)
    v = here[4]
    gx, gy, gs = (here[5] - here[3]) * _HALF, (here[7] - here[1]) * _HALF, (above[4] - below[4]) * _HALF
    xx, yy, ss = (a + b - np.float32(2) * v for a, b in ((here[5], here[3]), (here[7], here[1]), (above[4], below[4])))
    xy = (here[8] - here[6] - here[2] + here[0]) * _QUARTER
    xs = (above[5] - above[3] - below[5] + below[3]) * _QUARTER
    ys = (above[7] - above[1] - below[7] + below[1]) * _QUARTER
    trace, det2 = xx + yy, xx * yy - xy * xy
    a, b, c = yy * ss - ys * ys, xs * ys - xy * ss, xy * ys - xs * yy
    det, e, f = xx * a + xy * b + xs * c, xx * ss - xs * xs, xy * xs - xx * ys
    with np.errstate(divide="ignore", invalid="ignore"):
        dx, dy, ds = (-s / det for s in (a * gx + b * gy + c * gs, b * gx + e * gy + f * gs, c * gx + f * gy + det2 * gs))
        contrast = np.abs(v + _HALF * (gx * dx + gy * dy + gs * ds))
        point = (det2 > 0) & (trace * trace < _EDGE * det2) & (np.abs(dx) < 1) & (np.abs(dy) < 1) & (np.abs(ds) < 1) & (contrast >= least)
    octaves = np.full(len(x), octave, np.int32)
    return Extrema(x.astype(np.float32) + dx, y.astype(np.float32) + dy, np.float32(level) + ds, contrast, octaves).taken(point)


# ---- choice


def _choose(found: Extrema, width: int, height: int, most: int) -> I64:
    """Which extrema to keep: the strongest of each cell first, then each cell's second, and so on."""
    zoom = (1 << found.octave).astype(np.float32)
    column, row = (_cell(at * zoom, side) for at, side in ((found.x, width), (found.y, height)))
    cell = row * PLAN.grid + column
    sigma = zoom * np.exp2(found.scale / np.float32(PLAN.scales))
    strength = found.strength * np.sqrt(sigma * np.sqrt(sigma))
    order = np.lexsort((-strength, cell))
    first = np.searchsorted(cell[order], cell[order])
    rank = np.arange(len(order)) - first
    return np.asarray(order[np.lexsort((cell[order], -strength[order], rank))][:most], np.int64)


def _cell(at: F32, side: int) -> I32:
    return np.asarray((at * np.float32(PLAN.grid) / np.float32(side)).astype(np.int32).clip(0, PLAN.grid - 1), np.int32)


# ---- directions and descriptors


def _laid_out(octaves: list[F32]) -> Pyramid:
    sizes = np.array([[octave[0].size] * len(octave) for octave in octaves], np.int64)
    start = (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape)
    width, height = (np.array([octave.shape[axis] for octave in octaves], np.int32) for axis in (2, 1))
    return Pyramid(np.concatenate([octave.ravel() for octave in octaves]), start, width, height)


def _gradients(pyramid: Pyramid, points: Extrema, along: F32, across: F32, side: int) -> tuple[F32, F32]:
    """Magnitudes and turns (0..1) of side x side gradients around each point, n x (side * side) each."""
    patch = side + 2
    middle = np.float32(0.5 * (patch - 1))
    v, u = (axis.ravel().astype(np.float32) - middle for axis in np.indices((patch, patch)))
    fx = points.x[:, None] + (along[:, None] * u - across[:, None] * v)
    fy = points.y[:, None] + (across[:, None] * u + along[:, None] * v)
    values, inside = _sample(pyramid, points, fx, fy)
    values, inside = values.reshape(-1, patch, patch), inside.reshape(-1, patch, patch)[:, 1:-1, 1:-1]
    gx, gy = values[:, 1:-1, 2:] - values[:, 1:-1, :-2], values[:, 2:, 1:-1] - values[:, :-2, 1:-1]
    magnitude = np.sqrt(gx * gx + gy * gy) * inside
    return magnitude.reshape(-1, side * side), _turn(gx, gy).reshape(-1, side * side)


def _sample(pyramid: Pyramid, points: Extrema, fx: F32, fy: F32) -> tuple[F32, F32]:
    """Bilinear values at the places (n x samples), and 1 where those lie in the picture."""
    width, height = pyramid.width[points.octave][:, None], pyramid.height[points.octave][:, None]
    cx = np.minimum(np.maximum(fx, np.float32(0)), (width - 1).astype(np.float32))
    cy = np.minimum(np.maximum(fy, np.float32(0)), (height - 1).astype(np.float32))
    ix, iy = np.minimum(cx.astype(np.int32), width - 2), np.minimum(cy.astype(np.int32), height - 2)
    a, b = cx - ix.astype(np.float32), cy - iy.astype(np.float32)
    level = (points.scale + _HALF).astype(np.int32)
    at = pyramid.start[points.octave, level][:, None] + iy * width.astype(np.int64) + ix
    near, near_right, far, far_right = (pyramid.pixels[at + step] for step in (0, 1, width, width + 1))
    top, low = near + a * (near_right - near), far + a * (far_right - far)
    return np.asarray(top + b * (low - top), np.float32), ((cx == fx) & (cy == fy)).astype(np.float32)


def _turn(gx: F32, gy: F32) -> F32:
    """Direction as a share of a whole turn, 0..1, within 5e-5."""
    ax, ay = np.abs(gx), np.abs(gy)
    a = np.minimum(ax, ay) / (np.maximum(ax, ay) + np.float32(1e-20))
    s = a * a
    angle = ((np.float32(-0.0464964749) * s + np.float32(0.15931422)) * s - np.float32(0.327622764)) * s * a + a
    angle = angle * np.float32(0.15915494)
    angle = np.where(ay > ax, _QUARTER - angle, angle)
    angle = np.where(gx < 0, _HALF - angle, angle)
    angle = np.where(gy < 0, np.float32(1) - angle, angle)
    return np.asarray(np.where(angle < 1, angle, np.float32(0)), np.float32)


def _directions(pyramid: Pyramid, points: Extrema, sigma: F32) -> tuple[I64, F32]:
    """(point, turn) of each direction, a point's second one right after its first."""
    step = np.float32(PLAN.turn_step) * sigma
    magnitude, turn = _gradients(pyramid, points, step, np.zeros_like(step), AROUND)
    smooth = _histogram(magnitude * _AROUND, (turn * np.float32(TURNS)).astype(np.int32))
    rows, best = np.arange(len(smooth)), smooth.argmax(axis=1)
    before, after = np.roll(smooth, 1, axis=1), np.roll(smooth, -1, axis=1)
    peaks = np.where((smooth > after) & (smooth >= before), smooth, np.float32(-1))
    peaks[rows, best] = -1
    second = peaks.argmax(axis=1)
    two = peaks[rows, second] >= _SECOND * smooth[rows, best]
    two &= peaks[rows, second] >= 0
    owner = np.concatenate([rows, rows[two]])
    bins = np.concatenate([best, second[two]])
    order = np.argsort(owner, kind="stable")
    owner, bins = owner[order], bins[order]
    left, here, right = before[owner, bins], smooth[owner, bins], after[owner, bins]
    bend = left - np.float32(2) * here + right
    with np.errstate(divide="ignore", invalid="ignore"):
        at = bins.astype(np.float32) + _HALF + np.where(bend < 0, _HALF * (left - right) / bend, np.float32(0))
    at = at * np.float32(1 / TURNS)
    return owner, np.asarray(np.where(at < 1, at, at - np.float32(1)), np.float32)


def _histogram(weights: F32, bins: I32) -> F32:
    """n x TURNS, smoothed."""
    rows = np.arange(len(weights))
    raw = np.zeros((2, len(weights), TURNS), np.float32)
    for i in range(AROUND * AROUND):
        raw[i % 2, rows, bins[:, i]] += weights[:, i]
    total = raw[0] + raw[1]
    near = np.roll(total, -1, axis=1) + np.roll(total, 1, axis=1)
    far = np.roll(total, -2, axis=1) + np.roll(total, 2, axis=1)
    return np.asarray(np.float32(0.375) * total + (np.float32(0.25) * near + np.float32(0.0625) * far), np.float32)


def _describe(pyramid: Pyramid, points: Extrema, along: F32, across: F32) -> U8:
    magnitude, turn = _gradients(pyramid, points, along, across, SAMPLES)
    at = turn * np.float32(BINS)
    bins = at.astype(np.int32)
    share = magnitude * (at - bins.astype(np.float32))
    lines = np.zeros((len(turn), SAMPLES * SAMPLES, BINS), np.float32)
    rows, samples = np.indices(bins.shape)
    lines[rows, samples, bins] = magnitude - share
    lines[rows, samples, (bins + 1) % BINS] = share
    across_rows = _pooled(lines.reshape(len(turn), SAMPLES, SAMPLES * BINS))  # n x CELLS x (SAMPLES * BINS)
    whole = _pooled(across_rows.reshape(len(turn) * CELLS, SAMPLES, BINS))
    return _root(whole.reshape(len(turn), CELLS * CELLS, BINS))


def _pooled(lines: F32) -> F32:
    """n x SAMPLES x m -> n x CELLS x m."""
    cells = np.zeros((len(lines), CELLS, lines.shape[2]), np.float32)
    for cell in range(CELLS):
        for row in np.flatnonzero(_POOL[cell]):
            cells[:, cell] = cells[:, cell] + _POOL[cell, row] * lines[:, row]
    return cells


def _root(whole: F32) -> U8:
    """RootSIFT in 8 bits (n x 128): Euclidean distance of these is Hellinger distance of the histograms (n x 16 x 8)."""
    most = np.float32(0.2) * np.sqrt(_summed(whole * whole))
    whole = np.minimum(whole, most[:, None, None])
    unit = np.float32(1) / np.maximum(_summed(whole), np.float32(1e-6))
    value = np.sqrt(whole * unit[:, None, None]) * np.float32(512) + _HALF
    return np.asarray(np.minimum(value, np.float32(255)).astype(np.uint8).reshape(len(whole), -1), np.uint8)


def _summed(values: F32) -> F32:
    """The sum of each n x 16 x 8 histogram, in the order of the native form."""
    lanes = np.zeros((len(values), BINS), np.float32)
    for row in range(CELLS * CELLS):
        lanes = lanes + values[:, row]
    total = np.zeros(len(values), np.float32)
    for lane in range(BINS):
        total = total + lanes[:, lane]
    return total
