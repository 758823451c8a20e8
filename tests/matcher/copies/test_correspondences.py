from __future__ import annotations

import numpy as np
import pytest

from matcher.copies.correspondences import Pairs, correspond
from matcher.copies.features import Fingerprint, fingerprint, registered
from matcher.copies.native import library
from matcher.pixels import U8
from tests.matcher.copies.brute import mirrored
from tests.matcher.pictures import crop, mirror, photo

native = pytest.mark.skipif(library() is None, reason="the native library is not built")


def same(a: Pairs, b: Pairs) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("registered", "query", "scale", "turn"))


def reference(registered: Fingerprint, query: Fingerprint) -> set[tuple[int, int]]:
    """Features that are each other's nearest, by all distances; the second nearest counts from elsewhere."""
    a, b = registered.descriptors.astype(int), query.descriptors.astype(int)
    table = ((a[:, None] - b[None]) ** 2).sum(axis=2)
    apart = np.hypot(*(registered.points[:, None, :2] - registered.points[None, :, :2]).transpose(2, 0, 1))
    found = set()
    for j in range(table.shape[1]):
        i = int(table[:, j].argmin())
        elsewhere = table[apart[i] >= 0.02 * 256, j]
        if table[i].argmin() == j and len(elsewhere) and table[i, j] < 0.92**2 * elsewhere.min():
            found.add((i, j))
    return found


@pytest.mark.parametrize("flip", [False, True])
def test_pairs_are_mutual_and_clear(flip: bool) -> None:
    known, query = registered(photo(1)), fingerprint(crop(photo(1), 0.2, 0.2, 0.6))
    pairs = correspond(known, query)[int(flip)]
    seen = mirrored(query) if flip else query
    expected = reference(known, seen)
    points = {(*known.points[i, :2].tolist(), *seen.points[j, :2].tolist()) for i, j in expected}
    assert {(*r, *q) for r, q in zip(pairs.registered.tolist(), pairs.query.tolist(), strict=True)} == points
    assert len(pairs) == len(expected) > 20


def test_one_look_answers_the_mirror() -> None:
    known = registered(photo(1))
    upright, flipped = correspond(known, fingerprint(mirror(photo(1))))
    assert len(flipped) > 100
    assert len(upright) < len(flipped) / 2
    assert np.median(np.abs(flipped.registered - flipped.query)) < 1.5


@native
@pytest.mark.parametrize(
    "query", [photo(1), photo(2), crop(photo(1), 0.1, 0.1, 0.3), photo(3, 40, 40)], ids=["same", "other", "crop", "tiny"]
)
def test_the_native_form_finds_the_same_pairs(query: U8, monkeypatch: pytest.MonkeyPatch) -> None:
    known, seen = registered(photo(1)), fingerprint(query)
    found = correspond(known, seen)
    monkeypatch.setenv("FILIGRANE_PURE", "1")
    pure = correspond(known, seen)
    assert all(same(a, b) for a, b in zip(found, pure, strict=True))


def test_without_features_there_are_no_pairs() -> None:
    flat = fingerprint(np.full((50, 60, 3), 77, np.uint8))
    assert [len(pairs) for pairs in correspond(registered(photo(1)), flat)] == [0, 0]
    assert [len(pairs) for pairs in correspond(flat, fingerprint(photo(1)))] == [0, 0]
