from __future__ import annotations

import numpy as np
import pytest

from matcher.copies.codes import ANTISYMMETRIC, BITS, LOGS, Projections, distances, encode, halves, log
from matcher.copies.features import MIRROR, fingerprint
from matcher.pixels import U8
from tests.matcher.pictures import mirror, photo


@pytest.fixture(scope="module")
def descriptors() -> U8:
    return np.concatenate([fingerprint(photo(seed, 400, 300)).descriptors for seed in range(100, 104)])


def test_the_native_form_and_numpys_are_equal(descriptors: U8, monkeypatch: pytest.MonkeyPatch) -> None:
    extreme = np.array([[0] * 128, [255] * 128, [0, 255] * 64], np.uint8)
    for given in (descriptors, extreme, descriptors[:0], descriptors[::2, ::-1]):
        native = encode(given)
        with monkeypatch.context() as patch:
            patch.setenv("FILIGRANE_PURE", "1")
            pure = encode(given)
        np.testing.assert_array_equal(native.codes, pure.codes)
        np.testing.assert_array_equal(native.margins, pure.margins)


def test_the_mirror_turns_the_lower_half_and_nothing_else(descriptors: U8) -> None:
    plain, flipped = encode(descriptors), encode(descriptors[:, MIRROR])
    # a projection of exactly 0 has no sign to turn
    zero = (halves(descriptors)[1] @ Projections.shipped().antisymmetric.T.astype(np.int32) == 0).any(axis=1)
    assert zero.mean() < 0.02
    np.testing.assert_array_equal((plain.codes ^ ANTISYMMETRIC)[~zero], flipped.codes[~zero])
    np.testing.assert_array_equal(plain.margins, flipped.margins)
    sums, differences = halves(descriptors)
    assert (sums == halves(descriptors[:, MIRROR])[0]).all()
    assert (differences == -halves(descriptors[:, MIRROR])[1]).all()


def test_a_mirrored_picture_has_near_codes_turned() -> None:
    plain, flipped = (encode(fingerprint(image).descriptors).codes for image in (photo(1), mirror(photo(1))))
    near = [distances(plain, code) for code in flipped]
    best = [(d.min(), bool(turned[d.argmin()])) for d, turned in near]
    assert np.mean([d <= 8 and turned for d, turned in best]) > 0.7


def test_features_of_other_pictures_are_far(descriptors: U8) -> None:
    codes = encode(descriptors).codes
    other = encode(fingerprint(photo(200, 400, 300)).descriptors).codes
    apart = np.concatenate([distances(codes, code)[0] for code in other])
    assert np.median(apart) > 20
    assert (apart <= 8).mean() < 1e-3


def test_the_upper_bits_are_balanced(descriptors: U8) -> None:
    ones = [((encode(descriptors).codes >> np.uint64(63 - bit)) & np.uint64(1)).mean() for bit in range(BITS)]
    assert min(ones) > 0.15
    assert max(ones) < 0.85


def test_logarithms_of_counts() -> None:
    assert log(0) == log(1) == 0
    assert log(4095) == LOGS[4095] == round(256 * np.log(4095))
    for count in (4096, 123_456, 10_000_000):
        assert abs(log(count) / 256 - np.log(count)) < 0.05
