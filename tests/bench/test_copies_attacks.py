"""The attacks are what they say, and the same each time; what is held out stays out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.copies.attacks import ATTACKS, PLAIN, Attack
from bench.copies.sets import folder, free, sets
from tests.matcher.pictures import photo


def test_there_are_32() -> None:
    assert len(ATTACKS) == 32
    assert set(PLAIN) < set(ATTACKS)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_an_attack_changes_the_picture_in_one_way_per_name(attack: Attack) -> None:
    rgb = photo(3, 300, 200)
    before = rgb.copy()
    once, again = attack(rgb, "a.jpg"), attack(rgb, "a.jpg")
    assert once.dtype == np.uint8
    assert once.ndim == 3
    assert np.array_equal(once, again)
    assert once.shape != rgb.shape or not np.array_equal(once, rgb)
    assert np.array_equal(rgb, before)


@pytest.mark.parametrize(("name", "share"), [("crop_50", 0.5), ("crop_25", 0.25), ("crop_10", 0.1)])
def test_crops_keep_that_share(name: str, share: float) -> None:
    rgb = photo(3, 600, 450)
    found = [ATTACKS[name](rgb, str(n)).size / rgb.size for n in range(8)]
    assert found == pytest.approx([share] * 8, rel=0.12)


def test_a_crop_lies_elsewhere_in_another_picture() -> None:
    rgb = photo(3, 300, 200)
    first, second = ATTACKS["crop_10"](rgb, "a.jpg"), ATTACKS["crop_10"](rgb, "b.jpg")
    assert first.shape != second.shape or not np.array_equal(first, second)


def test_parts_of_a_folder_are_disjoint_and_whole(tmp_path: Path) -> None:
    for number in range(13):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number:02}.png")
    (tmp_path / "SOURCES.csv").touch()
    dev, held_out = sets(tmp_path, tmp_path), sets(tmp_path, tmp_path, "held out")
    names = {picture.name for picture in folder(tmp_path)}
    assert [p.name for p in held_out.registered] == ["02.png", "05.png", "08.png", "11.png"]
    assert [p.name for p in held_out.distractors] == ["05.png", "11.png"]
    assert {p.name for p in dev.registered} == names - {p.name for p in held_out.registered}
    assert {p.name for p in dev.distractors} == names - {p.name for p in held_out.distractors}


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no pictures"):
        folder(tmp_path)


def test_free_pictures_have_names_of_their_own() -> None:
    names = [p.name for p in (*free(0, 2), *free(100, 2, bundled=False))]
    assert len(set(names)) == len(names)
