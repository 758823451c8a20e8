from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcher.pixels import U8, gray
from matcher.watermark.align import align, places
from matcher.watermark.detect import MAX_P, SHARES, detect, detect_all, statistic, terms
from matcher.watermark.embed import MIN_SIDE, add, draw, embed, stripes
from matcher.watermark.errors import RegistrationInvalid
from matcher.watermark.keys import KEY_BYTES, band, coefficients, grid, new_key, pattern
from matcher.watermark.masking import MIN_PSNR
from matcher.watermark.payload import signs
from matcher.watermark.query import Query
from matcher.watermark.registration import Registration
from matcher.watermark.residual import spectrum
from matcher.watermark.significance import p_value
from tests.matcher.pictures import captioned, crop, jpeg, mirror, photo, resize

_KEY = bytes(range(32))
_MARKED, _REGISTRATION = embed(photo(1, 900, 675), key=_KEY)

_EDITS: dict[str, Callable[[U8], U8]] = {
    "the same": lambda p: p,
    "JPEG 50": lambda p: jpeg(p, 50),
    "half the size": lambda p: resize(p, 0.5),
    "half of it": lambda p: crop(p, 0.1, 0.2, 0.71),
    "mirrored": mirror,
    "captioned": captioned,
    "turned": lambda p: np.ascontiguousarray(np.rot90(p)),
    "half of it, half the size, JPEG 50": lambda p: jpeg(resize(crop(p, 0.2, 0.2, 0.71), 0.5), 50),
}


@pytest.mark.parametrize("name", _EDITS)
def test_the_mark_survives(name: str) -> None:
    found = detect(_EDITS[name](_MARKED), _REGISTRATION)
    assert found.marked
    assert found.p_value <= MAX_P


def test_the_mark_cannot_be_seen() -> None:
    for seed in range(3):
        rgb = photo(seed)
        error = np.mean((embed(rgb)[0].astype(float) - rgb) ** 2)
        assert 10 * np.log10(255**2 / error) >= MIN_PSNR - 0.05


def test_originals_other_keys_and_other_pictures_are_not_marked() -> None:
    other = replace(_REGISTRATION, key=new_key())
    assert not detect(photo(1, 900, 675), _REGISTRATION).marked
    assert not detect(_MARKED, other).marked
    nothing = detect(photo(2), _REGISTRATION)
    assert (nothing.marked, nothing.p_value, nothing.transform) == (False, 1.0, None)


def test_the_transform_tells_where_the_picture_lies() -> None:
    query = mirror(crop(_MARKED, 0.2, 0.1, 0.6))
    transform = detect(query, _REGISTRATION).transform
    assert transform is not None
    corner = transform @ [0.2 * 900, 0.1 * 675, 1]
    assert np.allclose(corner[:2] / corner[2], [query.shape[1] - 1, 0], atol=1.5)


def test_several_keys_count_in_the_p_value_and_share_an_alignment() -> None:
    others = [replace(_REGISTRATION, key=bytes([i]) * 32) for i in (11, 0, 1)]
    query = jpeg(photo(1, 900, 675), 80)
    alone = detect_all(Query.of(query), others[:1])[0].p_value
    together = detect_all(Query.of(query), others)
    assert alone < 0.1  # so that what is counted is not cut at 1
    assert together[0].p_value == pytest.approx(3 * alone)
    assert detect_all(Query.of(query), others[:1], tried=5)[0].p_value == pytest.approx(5 * alone)
    assert [d.marked for d in detect_all(Query.of(_MARKED), [*others, _REGISTRATION])] == [False, False, False, True]


@pytest.mark.parametrize("edit", ["half the size", "half of it", "mirrored", "captioned", "turned"])
def test_where_others_saw_it_is_only_a_start(edit: str) -> None:
    query = Query.of(_EDITS[edit](_MARKED))
    found = detect_all(query, [_REGISTRATION])[0]
    assert found.transform is not None
    for seen in (found.transform, np.diag([0.3, 0.3, 1.0]), np.array([[1.0, 0.2, 40], [0, 1.1, 7], [0, 0, 1]])):
        again = detect_all(query, [_REGISTRATION], seen=seen)[0]
        assert again.marked
        assert again.transform is not None
        assert np.allclose(again.transform, found.transform, atol=0.5)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_key_is_tried_where_a_texture_repeats(seed: int) -> None:
    """Six times the same: the first place that the pixels agree at is another one."""
    marked, registration = embed(np.tile(photo(seed, 360, 300), (2, 3, 1)), key=_KEY)
    query = np.ascontiguousarray(marked[320:600, 700:1040])
    first = align(gray(query), registration)
    found = detect(query, registration)
    assert first is not None
    assert found.marked
    assert found.transform is not None
    assert not np.allclose(first.transform, found.transform, atol=100)
    assert np.allclose(np.linalg.inv(found.transform)[:2, 2], [700, 320], atol=1)


def test_a_mark_that_was_taken_off_twice_is_found() -> None:
    original = photo(1, 900, 675).astype(int)
    beyond = np.clip(2 * original - _MARKED, 0, 255).astype(np.uint8)
    assert detect(jpeg(beyond, 70), _REGISTRATION).marked
    assert not detect(photo(1, 900, 675), _REGISTRATION).marked


def test_several_places_together_say_no_less_than_the_p_value() -> None:
    """Of keys that are not there the least p-value of all places is as small as it says, or rarer: within four deviations."""
    registration = embed(np.tile(photo(3, 360, 300), (2, 3, 1)), key=new_key())[1]
    query = Query.of(np.tile(photo(3, 360, 300), (2, 3, 1))[320:600, 700:1040])
    observed = [spectrum(place) for place in places(query, registration, thorough=True)]
    assert len(observed) > 1
    size = grid(registration.width, registration.height)
    keys = [i.to_bytes(KEY_BYTES, "big") for i in range(600)]
    p = [min(p_value(abs(statistic(x, key, size)), 2 / share) for x, share in zip(observed, SHARES, strict=False)) for key in keys]
    for level in (0.3, 0.05):
        assert np.mean(np.array(p) <= level) < level + 4 * np.sqrt(level * (1 - level) / len(keys))


def test_what_is_tried_at_several_places_counts() -> None:
    """The first place has nine tenths of all chances, and a mark has two signs."""
    other = replace(_REGISTRATION, key=new_key())
    place = align(gray(_MARKED), other)
    assert place is not None
    z = statistic(spectrum(place), other.key, place.known.grid)
    assert detect_all(Query.of(_MARKED), [other])[0].p_value == pytest.approx(p_value(abs(z), 2 / 0.9))


@pytest.mark.parametrize("payload", [False, True])
def test_the_statistic_of_wrong_keys_is_standard_normal(payload: bool) -> None:
    """On a marked picture, whose remains are anything but white: mean, variance and tail within four standard errors."""
    aligned = align(gray(jpeg(_MARKED, 60)), _REGISTRATION)
    assert aligned is not None
    observed = spectrum(aligned)
    keys = [i.to_bytes(KEY_BYTES, "big") for i in range(400)]
    sign = np.array([signs(key, len(observed), 1234567) if payload else np.ones(len(observed)) for key in keys])
    z = np.array([terms(observed, key, aligned.known.grid) @ s for key, s in zip(keys, sign, strict=True)])
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / len(z))
    assert abs((z > 2).mean() - 0.02275) < 4 * np.sqrt(0.02275 / len(z))
    assert statistic(observed, _KEY, aligned.known.grid) > 20


def test_the_pattern_is_fixed_by_key_and_size() -> None:
    size = grid(900, 675)
    first = coefficients(_KEY, size)
    assert np.array_equal(first, coefficients(_KEY, size))
    assert len(first) == len(band(size).rows)
    # written down: a registration made today is detected by every later version
    assert np.allclose(first[:2], [_FIRST, _SECOND], atol=1e-5)
    assert pattern(first, size).std() == pytest.approx(1, abs=1e-4)
    other = pattern(coefficients(bytes(32), size), size)
    assert abs(float(np.mean(pattern(first, size) * other))) < 0.05


def _of_scheme(number: int) -> tuple[U8, Registration]:
    data = Path(__file__).parent / "data"
    with Image.open(data / f"scheme-{number}.jpg") as image:
        return np.asarray(image), Registration.from_bytes((data / f"scheme-{number}.registration").read_bytes())


def test_marks_of_the_first_scheme_are_found() -> None:
    query, registration = _of_scheme(1)
    assert detect(query, registration).marked
    assert detect(resize(query, 0.5), registration).marked
    assert not detect(query, replace(registration, key=new_key())).marked


def test_payloads_of_the_second_scheme_are_read() -> None:
    query, registration = _of_scheme(2)
    assert registration.payload
    assert detect(query, registration).payload == 11_259_375


@pytest.mark.parametrize("size", [(64, 900), (900, 70), (65, 65)])
def test_odd_shapes_can_be_marked(size: tuple[int, int]) -> None:
    rgb = photo(5, *size)
    marked, registration = embed(rgb)
    assert marked.shape == rgb.shape
    assert detect(marked, registration).p_value <= 1


def test_a_transactional_registration_is_the_same_without_the_small_picture() -> None:
    rgb = photo(1, 900, 675)
    marked, registration = embed(rgb, key=_KEY, transactional=True)
    assert np.array_equal(marked, _MARKED)
    assert registration.with_original(_REGISTRATION) == _REGISTRATION
    with pytest.raises(RegistrationInvalid, match="full one") as caught:
        detect(marked, registration)
    assert caught.value.code == "original_required"


@pytest.mark.parametrize("size", [(1500, 700), (700, 1500), (300, 200)])
def test_stripes_are_the_change_whatever_their_height(size: tuple[int, int]) -> None:
    rgb = photo(3, *size)
    change, _ = draw(rgb, key=_KEY)
    whole = np.concatenate([part for _, part in stripes(change, size)])
    assert whole.shape == rgb.shape[:2]
    assert np.array_equal(whole, np.concatenate([part for _, part in stripes(change, size, 37)]))
    assert np.array_equal(add(rgb, change), embed(rgb, key=_KEY)[0])


def test_a_secret_hides_the_mark() -> None:
    marked, registration = embed(photo(1, 900, 675), key=_KEY, secret="Grüße")
    assert registration.secret
    assert detect(marked, registration, secret="Gru\u0308ße").marked
    assert not detect(marked, registration, secret="grüße").marked
    alone = detect(marked, registration)
    assert (alone.marked, alone.p_value) == (False, 1.0)
    assert alone.transform is not None
    assert not detect(marked, replace(registration, secret=False)).marked
    assert detect(_MARKED, _REGISTRATION, secret="not asked for").marked


def test_keys_with_secrets_are_no_tries_of_the_pipeline() -> None:
    hidden = replace(_REGISTRATION, secret=True)
    query = jpeg(photo(1, 900, 675), 80)
    found = detect_all(Query.of(query), [hidden, _REGISTRATION])
    assert found[0].p_value == 1.0
    assert found[1].p_value == detect_all(Query.of(query), [_REGISTRATION])[0].p_value


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (3, 2000)])
def test_queries_that_are_nearly_nothing_are_not_marked(size: tuple[int, int]) -> None:
    assert detect(np.ascontiguousarray(photo(2, 2000, 2000)[: size[1], : size[0]]), _REGISTRATION).p_value == 1.0


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="64 pixels"):
        embed(photo(1, MIN_SIDE - 1, 200))
    with pytest.raises(ValueError, match="32 bytes"):
        embed(photo(1), key=b"short")
    for payload in (-1, 1 << 24):
        with pytest.raises(ValueError, match="16777215"):
            embed(photo(1), payload=payload)
        with pytest.raises(ValueError, match="16777215"):
            detect(photo(1), _REGISTRATION, payload_max=payload)
    with pytest.raises(ValueError, match="one character"):
        embed(photo(1), secret="")


_FIRST, _SECOND = -0.967454 + 0.188032j, -0.973820 - 1.233913j
