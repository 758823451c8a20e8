from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher.pixels import F64, U8
from matcher.watermark.detect import detect
from matcher.watermark.embed import embed
from matcher.watermark.payload import MAX_PAYLOAD, PARTS, doubt, find, parts_of, signs, symbols, tail
from matcher.watermark.registration import Registration
from tests.matcher.pictures import crop, jpeg, photo, resize

_KEY = bytes(range(32))
_COUNT = 20_000
_PAYLOADS = st.integers(0, MAX_PAYLOAD)


def _terms(payload: int, z: float, seed: int = 0, parts: int = PARTS) -> F64:
    """What is observed of a mark with that statistic: each coefficient as likely to help as any, in noise."""
    draw = np.random.default_rng(seed)
    drawn = draw.normal(size=_COUNT)
    observed = drawn * signs(_KEY, _COUNT, payload, parts) * z / np.sqrt(_COUNT) + draw.normal(size=_COUNT)
    return np.asarray(drawn * observed / np.linalg.norm(observed), np.float64)


@settings(max_examples=25, deadline=None)  # the first asks for tables that are kept
@given(_PAYLOADS, st.integers(0, 1000))
def test_a_payload_comes_back(payload: int, seed: int) -> None:
    found = find(_terms(payload, 20, seed), _KEY)
    assert found.payload == payload
    assert found.statistic == pytest.approx(20, abs=5)
    assert found.doubt < 1e-9


@given(_PAYLOADS, _PAYLOADS)
def test_two_payloads_share_one_symbol_at_most(first: int, second: int) -> None:
    pairs = zip(symbols(np.int64(first)), symbols(np.int64(second)), strict=True)
    assert sum(int(a) == int(b) for a, b in pairs) <= (PARTS if first == second else 1)


@given(st.integers(0, 4095), st.integers(0, 4095), st.integers(1, 4095))
def test_payloads_that_share_their_first_symbol_share_no_other(first: int, second: int, by: int) -> None:
    one, other = symbols(np.int64(first << 12 | second)), symbols(np.int64(first << 12 | second ^ by))
    assert [int(a) == int(b) for a, b in zip(one, other, strict=True)] == [True] + [False] * (PARTS - 1)


def test_payload_0_changes_nothing_and_others_half_the_signs() -> None:
    assert np.all(signs(_KEY, _COUNT, 0) == 1)
    for payload in (1, 1 << 12, MAX_PAYLOAD):
        assert set(np.unique(signs(_KEY, _COUNT, payload))) == {-1, 1}
    # a payload whose symbols are all different from 0
    assert abs(signs(_KEY, _COUNT, 1 << 12 | 2).mean()) < 4 / np.sqrt(_COUNT)


def test_the_signs_are_fixed_by_key_and_payload() -> None:
    # written down: a registration made today is read by every later version
    assert signs(_KEY, 16, 1234567).tolist() == _SIGNS
    assert signs(_KEY, 16, 1234567, parts_of(2)).tolist() == _SIGNS_OF_SCHEME_2


@given(_PAYLOADS, st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_payloads_of_earlier_schemes_are_read(payload: int, seed: int) -> None:
    assert parts_of(1) == parts_of(2) == 4
    found = find(_terms(payload, 20, seed, 4), _KEY, parts=4)
    assert (found.payload, found.doubt < 1e-9) == (payload, True)


def test_a_payload_that_is_hardly_sure_is_found_among_all() -> None:
    assert [find(_terms(seed, 10, seed), _KEY).payload for seed in range(20)] == list(range(20))


def test_a_largest_payload_narrows_what_is_tried() -> None:
    assert find(_terms(900, 20), _KEY, 1000).payload == 900
    assert find(_terms(900, 20), _KEY, 800).payload <= 800
    assert find(_terms(70_000, 20), _KEY, 70_000).payload == 70_000
    assert find(_terms(70_000, 20), _KEY, 69_999).payload < 70_000


def test_what_is_found_in_noise_is_doubted() -> None:
    assert min(find(_terms(5, 0, seed), _KEY).doubt for seed in range(20)) > 1e-3


def test_the_bound_holds_for_wrong_symbols() -> None:
    """Of a mark as it is found, eleven other symbols reach a statistic no more often than the bound says."""
    terms, draw = _terms(0, 9), np.random.default_rng(1)
    different = np.arange(_COUNT) % PARTS != 0
    power = float(np.sum(terms[different] ** 2))
    reached = np.array([terms[different] @ draw.choice([-1.0, 1.0], different.sum()) for _ in range(3000)])
    for t in (1.0, 2.0, 3.0):
        assert (reached >= t).mean() <= tail(t, power)


@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=10), st.floats(0, 4))
def test_no_sum_with_random_signs_reaches_more(sizes: list[float], t: float) -> None:
    """All signs are tried: for few and unequal terms, too, which are nothing like a Gaussian."""
    every = np.array(list(product((-1.0, 1.0), repeat=len(sizes)))) @ sizes
    power = float(np.sum(np.square(sizes)))
    assert (every >= t * np.sqrt(power)).mean() <= tail(t * np.sqrt(power), power) * (1 + 1e-9)


def test_doubt_is_the_largest_family_of_wrong_payloads() -> None:
    statistics, power = np.full(12, 1.5), np.full(12, 1 / 12)
    eleven = 4095 * tail(16.5, 11 / 12)
    none = MAX_PAYLOAD * tail(18.0, 1.0)
    assert doubt(statistics, power) == pytest.approx(13 * max(eleven, none))
    assert doubt(-statistics, power) == 1


@lru_cache
def _marked() -> tuple[U8, Registration]:
    return embed(photo(1, 900, 675), key=_KEY, payload=11_259_375)


def test_a_payload_survives_with_the_mark() -> None:
    marked, registration = _marked()
    assert registration.payload
    for query in (marked, jpeg(marked, 40), resize(marked, 0.5), crop(marked, 0.1, 0.2, 0.6)):
        assert detect(query, registration).payload == 11_259_375


def test_a_largest_payload_counts_in_the_p_value() -> None:
    marked, registration = embed(photo(1, 900, 675), key=_KEY, payload=9)
    query = jpeg(photo(1, 900, 675), 80)
    assert detect(marked, registration, payload_max=9).payload == 9
    few, one = detect(query, registration, payload_max=1).p_value, detect(query, registration, payload_max=0).p_value
    assert few <= min(1.0, 2 * one) * (1 + 1e-9)
    assert detect(query, registration).payload is None
    wrong = detect(marked, registration, payload_max=8)
    assert wrong.payload is None


def test_a_mark_without_payload_is_that_of_payload_0() -> None:
    rgb = photo(1, 900, 675)
    assert np.array_equal(embed(rgb, key=_KEY)[0], embed(rgb, key=_KEY, payload=0)[0])
    assert detect(embed(rgb, key=_KEY)[0], embed(rgb, key=_KEY)[1]).payload is None


_SIGNS_OF_SCHEME_2 = [1, 1, -1, -1, -1, -1, -1, 1, 1, -1, 1, -1, 1, -1, -1, -1]
_SIGNS = [1, 1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1]
