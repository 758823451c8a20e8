"""What is asked, and how the answers are laid out."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from bench.copies import flat, queries, systems
from bench.copies.gallery import show_failures
from bench.copies.peers import Hashes, distances
from bench.copies.recall import row_of, shows_of
from bench.copies.sets import Picture, Sets
from matcher.pixels import U8
from tests.matcher.pictures import photo

_PICTURES = [Picture(f"p{n}", partial(photo, n, 120, 80)) for n in range(2)]
_DISTRACTOR = Picture("d", partial(photo, 9, 120, 80))
_made: list[str] = []


def _counted(attack: str, rgb: U8, picture: str) -> U8:
    _made.append(f"{attack} {picture}")
    return rgb[:, ::-1]


def test_a_file_is_made_once(tmp_path: Path) -> None:
    task = queries._Task(_counted, _PICTURES[0], ("a", "b"), tmp_path)
    first, again = queries._written(task), queries._written(task)
    assert first == again
    assert _made == ["a p0", "b p0"]
    assert queries.Query(first["a"], "a", "p0").rgb().shape == (80, 120, 3)


def test_every_picture_meets_every_attack_and_distractors_meet_none(tmp_path: Path) -> None:
    asked = queries.ask(Sets(_PICTURES, [_DISTRACTOR]), queries.own, ["mirror", "gray"], tmp_path)
    assert [(q.attack, q.shows) for q in asked] == [("mirror", "p0"), ("gray", "p0"), ("mirror", "p1"), ("gray", "p1"), ("none", None)]
    assert len({q.path for q in asked}) == 5
    assert shows_of(_PICTURES, asked).tolist() == [0, 0, 1, 1, -1]


def test_the_library_is_asked_and_failures_are_drawn(tmp_path: Path) -> None:
    asked = queries.ask(Sets(_PICTURES, [_DISTRACTOR]), queries.own, ["mirror"], tmp_path)
    index, shows = systems.filigrane_index(_PICTURES, tmp_path), shows_of(_PICTURES, asked)
    answers = systems.ask_filigrane(index, _PICTURES, asked, "affine")
    assert row_of("filigrane", answers.copies, shows, asked)["attacks"] == {"mirror": 1.0}
    answers.copies[0, 0] = answers.all[0, 0] = -np.inf
    answers.all[2, 1] = 7.0
    show_failures(tmp_path / "seen", _PICTURES, asked, shows, answers)
    assert [path.name for path in sorted((tmp_path / "seen").iterdir())] == ["false-00.png", "miss-00.png"]


def test_the_nearest_form_counts() -> None:
    registered = [Hashes({"h": np.array([[1, 1, 0, 0]], bool)}), Hashes({"h": np.array([[0, 0, 0, 0]], bool)})]
    asked = [Hashes({"h": np.array([[0, 0, 1, 1], [1, 0, 0, 0]], bool)})]
    assert distances(registered, asked, "h").tolist() == [[1, 1]]


def test_flat_pictures_differ() -> None:
    made = [picture.load() for picture in flat.pictures(4)]
    assert len({rgb.tobytes() for rgb in made}) == len(made) == 16
    assert len(flat.pictures()) >= 60
    assert np.array_equal(flat.pictures()[0].load(), made[0])
