"""Learns what `matcher/copies/codes.npz` holds from pictures and copies of them that are made here.

    python -m bench.copies.projections --pictures FOLDER [--copies 3] [--out matcher/copies/codes.npz]

What is held out of the folder's distractors (`bench.copies.sets`) is left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from bench.copies.sets import Picture, sets
from bench.copies.work import spread
from matcher.copies.codes import BITS, DISTANCES, I16, I32, UNIT, Projections, distances, encode, halves
from matcher.copies.features import Fingerprint, fingerprint_gray, to_small
from matcher.pixels import F64, U8, gray, gray_from_jpeg, jpeg, resized, scaling

_SIDE: Final = 800
_SCALE: Final = 2047
"""The largest coefficient: 64 products with sums of two bytes stay below 2^31."""
_SHRINK: Final = 0.05
"""How much of the noise is taken to be the same in all directions."""
_QUERIES: Final = 4000


def copies(image: U8, draw: np.random.Generator, count: int) -> Iterator[tuple[U8, F64]]:
    """`count` copies of a gray picture, cut, turned, stretched, darkened and compressed at random; and 3 x 3, to their pixels."""
    height, width = image.shape
    for _ in range(count):
        zoom, aspect = 2 ** draw.uniform(-1.4, 0.4), 2 ** draw.uniform(-0.2, 0.2)
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), draw.choice([0, 0, draw.uniform(-40, 40)]), zoom)
        matrix = np.diag([aspect, 1 / aspect, 1]) @ np.vstack([turn, [0, 0, 1]])
        size = max(48, round(width * min(zoom, 1) * aspect)), max(48, round(height * min(zoom, 1) / aspect))
        inside = matrix @ [width * draw.uniform(0.4, 0.6), height * draw.uniform(0.4, 0.6), 1]
        matrix = scaling(size, size) @ np.array([[1, 0, size[0] / 2 - inside[0]], [0, 1, size[1] / 2 - inside[1]], [0, 0, 1]]) @ matrix
        blurred = cv2.GaussianBlur(image, (0, 0), 0.4 / min(zoom, 1)) if zoom < 1 else image
        copy = cv2.warpPerspective(blurred, matrix, size, flags=cv2.INTER_LINEAR).astype(float)
        copy = 255 * (copy / 255) ** draw.uniform(0.6, 1.6) * draw.uniform(0.6, 1.0) + draw.normal(0, draw.uniform(0, 10), copy.shape)
        yield gray_from_jpeg(jpeg(copy.clip(0, 255).astype(np.uint8), int(draw.integers(20, 90)))), matrix


def same(registered: Fingerprint, query: Fingerprint, matrix: F64) -> list[tuple[int, int]]:
    """Features of both that lie in the same place, as large and as far turned as `matrix` says."""
    if not len(registered.points) or not len(query.points):
        return []
    to = to_small(query) @ matrix @ np.linalg.inv(to_small(registered))
    at = (np.c_[registered.points[:, :2], np.ones(len(registered.points))] @ to.T)[:, :2]
    radians = np.deg2rad(registered.points[:, 3])
    turned = np.c_[np.cos(radians), np.sin(radians)] @ to[:2, :2].T
    angle = np.rad2deg(np.arctan2(turned[:, 1], turned[:, 0]))
    apart = np.linalg.norm(at[:, None] - query.points[None, :, :2], axis=2)
    zoom = np.abs(np.log2(query.points[None, :, 2] / (registered.points[:, None, 2] * np.sqrt(abs(np.linalg.det(to[:2, :2]))))))
    turn = np.abs((query.points[None, :, 3] - angle[:, None] + 180) % 360 - 180)
    fits = (apart < np.maximum(2.0, 0.25 * query.points[None, :, 2])) & (zoom < 0.4) & (turn < 25)
    cost = np.where(fits, apart + 10 * zoom + turn / 10, np.inf)
    return [(int(i), int(cost[i].argmin())) for i in np.flatnonzero(fits.any(axis=1))]


def learnt_from(picture: Picture, count: int) -> tuple[U8, U8, U8]:
    """Descriptors of a picture; and of the features that come back in its copies, those of either."""
    image = gray(picture.load())
    if max(image.shape) > _SIDE:
        image = resized(image, _SIDE)
    print_ = fingerprint_gray(image)
    left, right = [print_.descriptors[:0]], [print_.descriptors[:0]]
    for copy, matrix in copies(image, np.random.default_rng(sum(picture.name.encode())), count):
        query = fingerprint_gray(copy)
        pairs = np.array(same(print_, query, matrix), int).reshape(-1, 2)
        left.append(print_.descriptors[pairs[:, 0]])
        right.append(query.descriptors[pairs[:, 1]])
    return print_.descriptors, np.concatenate(left), np.concatenate(right)


def discriminants(all_: F64, noise: F64) -> F64:
    """64 x 64, a projection per column, the best first: the most variance of `all_` (n x 64, centred) per variance of `noise` (n x 64)."""
    within = noise.T @ noise / len(noise)
    values, vectors = np.linalg.eigh(within + np.eye(64) * np.trace(within) / 64 * _SHRINK)
    whitening = vectors / np.sqrt(values)
    white = all_ @ whitening
    values, vectors = np.linalg.eigh(white.T @ white / len(white))
    return np.asarray(whitening @ vectors[:, np.argsort(-values)])


def learn(prints: Sequence[U8], left: U8, right: U8) -> Projections:
    """`prints`: descriptors per picture; `left`, `right`: n x 128, the same features in a picture and in a copy of it."""
    everything = np.concatenate(prints)
    sums, differences = (part.astype(float) for part in halves(everything))
    # what is as likely mirrored as not has no mean difference
    noise_s, noise_d = ((a - b).astype(float) for a, b in zip(halves(left), halves(right), strict=True))
    symmetric = _integers(discriminants(sums - sums.mean(0), noise_s))
    antisymmetric = _integers(discriminants(differences, noise_d))
    centre = np.median(sums @ symmetric.T.astype(float), axis=0).astype(np.int32)
    blank = Projections(symmetric, antisymmetric, centre, np.zeros((BITS + 1, DISTANCES), np.int32))
    return Projections(symmetric, antisymmetric, centre, chance(prints, blank))


def _integers(projections: F64) -> I16:
    best = projections[:, :BITS].T
    return np.ascontiguousarray(np.round(best * (_SCALE / np.abs(best).max())).astype(np.int16))


def chance(prints: Sequence[U8], by: Projections) -> I32:
    """256 ln P(distance <= d) of features of different pictures whose codes agree in so many leading bits, or more."""
    owner = np.concatenate([np.full(len(p), i) for i, p in enumerate(prints)])
    codes = encode(np.concatenate(prints), by).codes
    seen = np.zeros((BITS + 1, DISTANCES))
    for row in np.random.default_rng(0).choice(len(codes), min(_QUERIES, len(codes)), replace=False):
        near, _ = distances(codes, codes[row])
        upper = (codes ^ codes[row]) >> np.uint64(BITS)
        leading = BITS - np.frexp(upper.astype(float))[1]
        other = owner != owner[row]
        seen += np.bincount(leading[other] * DISTANCES + near[other], minlength=seen.size).reshape(seen.shape)
    at_least = seen[::-1].cumsum(0)[::-1]
    shares = (at_least.cumsum(1) + 0.5) / (at_least.sum(1, keepdims=True) + 1)
    return np.asarray(np.round(UNIT * np.log(shares)), np.int32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("matcher/copies/codes.npz"))
    given = parser.parse_args()
    pictures = sets(None, given.pictures).distractors
    prints, left, right = zip(*spread(partial(learnt_from, count=given.copies), pictures, "learnt from"), strict=True)
    pairs = np.concatenate(left), np.concatenate(right)
    found = learn(prints, *pairs)
    np.savez_compressed(given.out, symmetric=found.symmetric, antisymmetric=found.antisymmetric, centre=found.centre, chance=found.chance)
    print(f"{len(pictures)} pictures, {sum(map(len, prints))} descriptors, {len(pairs[0])} pairs of the same feature -> {given.out}")
    turned = np.bitwise_count(encode(pairs[0], found).codes ^ encode(pairs[1], found).codes)
    print("share of pairs within 8, 12, 16 bits:", *(f"{(turned <= d).mean():.3f}" for d in (8, 12, 16)))


if __name__ == "__main__":
    main()
