from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import permutations
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher.copies.features import Fingerprint, fingerprint_gray
from matcher.copies.index import CopyIndex
from matcher.copies.plain import View, chance, details, looks, note, one_centre, same, unexplained
from matcher.copies.verdict import judge
from matcher.pixels import U8, gray, gray_from_jpeg, jpeg, resized
from tests.matcher.flat import dimmed, emblem, page, ramp, sky, vignette
from tests.matcher.pictures import photo

WHOLE = (0.0, 1.0, 0.0, 1.0)
PICTURES: dict[str, Callable[[], U8]] = {
    "clouds": lambda: sky(3),
    "an emblem": lambda: emblem(3, "sol"),
    "a glow": lambda: vignette(0.3, 0.7, 240, 60),
}
EDITS: dict[str, Callable[[U8], Any]] = {
    "the same": lambda image: image,
    "JPEG 40": lambda image: gray_from_jpeg(jpeg(image, 40)),
    "a quarter of the size": lambda image: resized(image, 160),
    "wider": lambda image: cv2.resize(image, (800, 480), interpolation=cv2.INTER_AREA),
    "mirrored": lambda image: np.ascontiguousarray(image[:, ::-1]),
}
TONES: dict[str, Callable[[U8], Any]] = {
    "pale": lambda image: (image * 0.6 + 50).astype(np.uint8),
    "darker in the middle": lambda image: (255 * (image / 255.0) ** 1.5).astype(np.uint8),
    "dark corners": lambda image: dimmed(image, 0.35),
}


@lru_cache(200)
def fingerprint_of(make: Callable[..., U8], *given: Any) -> Fingerprint:
    return fingerprint_gray(make(*given))


def view(image: U8) -> View:
    return View.of(resized(image, 256), WHOLE)


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("name", PICTURES)
def test_plain_copies_are_copies(name: str, edit: str) -> None:
    image = PICTURES[name]()
    verdict = judge(fingerprint_gray(image), fingerprint_gray(EDITS[edit](image)))
    assert verdict is not None
    assert verdict.name == "copy"
    assert verdict.mirrored == (edit == "mirrored")
    assert verdict.score > 2


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize("name", ["clouds", "an emblem"])
def test_other_tones_are_copies(name: str, tone: str) -> None:
    image = PICTURES[name]()
    known, query = fingerprint_gray(image), fingerprint_gray(TONES[tone](image))
    verdict = judge(known, query)
    assert verdict is not None
    assert verdict.name == "copy"


def test_the_transform_is_in_the_originals_pixels() -> None:
    framed = np.pad(np.ascontiguousarray(sky(3)[:, ::-1]), ((40, 40), (60, 60)))
    verdict = judge(fingerprint_gray(sky(3)), fingerprint_gray(framed))
    assert verdict is not None
    assert verdict.mirrored
    assert (verdict.inliers, verdict.pairs, verdict.overlap) == (0, 0, 1.0)
    assert verdict.likeness.share == 1.0
    assert verdict.likeness.median == pytest.approx(1.0, abs=0.02)
    assert np.allclose(verdict.transform @ [0, 0, 1], [60 + 639, 40, 1], atol=6)
    assert np.allclose(verdict.transform @ [639, 479, 1], [60, 40 + 479, 1], atol=6)


def test_different_pictures_are_no_copies() -> None:
    some = [*(fingerprint_of(sky, n) for n in range(16)), *(fingerprint_of(emblem, n) for n in range(10))]
    some += [fingerprint_of(page, n) for n in range(6)]
    verdicts = [judge(known, query) for known, query in permutations(some, 2)]
    assert not any(verdict is not None and verdict.name == "copy" for verdict in verdicts)


def test_another_word_below_the_same_emblem_is_another_picture() -> None:
    prints = [fingerprint_of(emblem, 3, word) for word in ("sol", "mar", "terra", "sal")]
    assert all(same(known, known) for known in prints)
    assert not any(same(known, query) for known, query in permutations(prints, 2))


def test_straight_gradients_are_never_told_from_others() -> None:
    some = [fingerprint_of(ramp, degrees) for degrees in range(0, 360, 30)]
    assert not any(same(known, query) for known in some for query in some)


def test_a_glow_is_only_told_by_its_levels() -> None:
    glow = fingerprint_of(vignette, 0.3, 0.7, 240, 60)
    found = same(glow, fingerprint_gray(gray_from_jpeg(jpeg(vignette(0.3, 0.7, 240, 60), 60))))
    assert found is not None
    assert not found.flipped
    assert same(glow, fingerprint_of(vignette, 0.3, 0.7, 220, 90)) is None
    assert same(glow, fingerprint_of(vignette, 0.35, 0.7, 240, 60)) is None


def test_what_is_counted_against_the_score_takes_it_away() -> None:
    known, query = fingerprint_of(sky, 3), fingerprint_gray(gray_from_jpeg(jpeg(sky(3), 60)))
    alone, among = same(known, query), same(known, query, 1000)
    assert alone is not None
    assert among is not None
    assert alone.score - among.score == pytest.approx(3)
    assert same(known, query, 10 ** int(alone.score + 1)) is None


def test_only_the_form_that_is_asked_for_is_looked_at() -> None:
    known, query = fingerprint_of(sky, 3), fingerprint_gray(np.ascontiguousarray(sky(3)[:, ::-1]))
    assert same(known, query, mirrored=True) is not None
    assert same(known, query, mirrored=False) is None


def test_what_looks_different_is_not_compared() -> None:
    assert same(fingerprint_of(sky, 1), fingerprint_of(sky, 2)) is None
    one_colour = fingerprint_gray(np.full((100, 100), 90, np.uint8))
    assert same(one_colour, one_colour) is None
    assert looks(one_colour) == ()


@settings(max_examples=40, deadline=None)
@given(st.floats(0.4, 1.0), st.floats(0.7, 1.4), st.integers(0, 40), st.integers(0, 11), st.booleans())
def test_a_tone_curve_leaves_nothing_unexplained(gain: float, gamma: float, lift: int, seed: int, mirrored: bool) -> None:
    image = sky(seed)[:, ::-1] if mirrored else sky(seed)
    toned = (lift + 200 * gain * (image / 255.0) ** gamma).astype(np.uint8)
    known, query = view(np.ascontiguousarray(image)), view(toned)
    assert unexplained(known, query).max() < 0.05
    assert chance(known, query) == pytest.approx(chance(known.flipped, query.flipped), abs=0.1)
    assert chance(known, query) < -1


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 360), st.floats(-0.5, 1.5), st.floats(-0.5, 1.5))
def test_gradients_and_glows_have_one_centre(degrees: float, x: float, y: float) -> None:
    assert one_centre(view(ramp(degrees))) < 0.02
    assert one_centre(view(vignette(x, y, 250, 10))) < 0.02


def test_clouds_and_pages_have_no_centre() -> None:
    assert all(one_centre(view(image)) > 0.05 for seed in range(8) for image in (sky(seed), page(seed)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (2, 3), (5, 2000), (40, 40)])
def test_no_shape_is_too_small(shape: tuple[int, int]) -> None:
    known = fingerprint_gray(np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8))
    found = same(known, known)
    assert found is None or np.allclose(found.transform, np.eye(3))
    note(known)


def test_details_are_counted() -> None:
    y, x = np.mgrid[0:32, 0:32] + 0.5
    waves = [np.cos(np.pi * (n + 2) * x / 32) * np.cos(np.pi * (n + 1) * y / 32) for n in range(8)]
    for count in (1, 4, 8):
        # twice as many, since what is counted are as a rule random waves
        assert details(np.sum(waves[:count], axis=0).ravel().astype(np.float32)) == pytest.approx(2 * count, rel=0.01)


def test_a_picture_with_dark_corners_is_also_looked_up_without() -> None:
    assert len(looks(fingerprint_of(sky, 3))) == 1
    assert len(looks(fingerprint_gray(dimmed(emblem(3), 0.35)))) == 2


def test_notes_say_what_will_be_found() -> None:
    assert note(fingerprint_gray(gray(photo(1)))) is None
    assert str(note(fingerprint_of(sky, 3))).startswith("too little texture")
    assert str(note(fingerprint_of(ramp, 20))).startswith("a plain gradient")
    assert str(note(fingerprint_gray(np.full((90, 90), 90, np.uint8)))).startswith("no texture")


def test_flat_pictures_are_found_among_each_other() -> None:
    """Registered together: each query names its own original, and nothing else."""
    makes: list[tuple[Callable[..., U8], Any]] = [(make, seed) for make in (sky, emblem) for seed in range(6)]
    makes += [(ramp, degrees) for degrees in range(0, 360, 45)]
    index: CopyIndex[str] = CopyIndex()
    for make, seed in makes:
        index.add(f"{make.__name__} {seed}", fingerprint_of(make, seed))
    for make, seed in makes:
        for edit in (EDITS["JPEG 40"], EDITS["mirrored"], TONES["pale"], TONES["dark corners"]):
            found = index.search(fingerprint_gray(edit(make(seed))), "affine")
            copies = [hit.id for hit in found if hit.verdict.name == "copy"]
            assert copies == ([f"{make.__name__} {seed}"] if make is not ramp else [])
