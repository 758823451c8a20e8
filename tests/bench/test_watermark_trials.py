"""What was tried is kept: a run that was cut goes on there, and ends with the same."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bench.copies.queries import stem
from bench.copies.sets import Picture
from bench.watermark.methods import ZERO_BIT
from bench.watermark.trials import Task, Trials, attempt, tried_on
from tests.matcher.pictures import photo

_PICTURE = Picture("a", partial(photo, 3, 320, 240))


def _kept(folder: Path) -> Path:
    return folder / f"{stem(_PICTURE)}.jsonl"


def test_a_run_that_was_cut_goes_on(tmp_path: Path) -> None:
    quality, tried = tried_on(Task(ZERO_BIT, _PICTURE, ("jpeg_70", "mirror"), tmp_path))
    whole = _kept(tmp_path).read_text()
    assert len(whole.splitlines()) == 3

    _kept(tmp_path).write_text(whole[:-20])
    again = tried_on(Task(ZERO_BIT, _PICTURE, ("jpeg_70", "mirror"), tmp_path))
    assert again[0] == quality
    assert again[1][0] == tried[0]
    assert (again[1][1].log_p, again[1][1].attack) == (tried[1].log_p, "mirror")
    assert _kept(tmp_path).read_text().splitlines()[:2] == whole.splitlines()[:2]


def test_nothing_is_tried_twice(tmp_path: Path) -> None:
    first = tried_on(Task(ZERO_BIT, _PICTURE, ("jpeg_70",), tmp_path))
    before = _kept(tmp_path).read_text()
    assert tried_on(Task(ZERO_BIT, _PICTURE, ("jpeg_70",), tmp_path)) == first
    assert _kept(tmp_path).read_text() == before
    tried_on(Task(ZERO_BIT, _PICTURE, ("jpeg_70", "gray"), tmp_path))
    assert _kept(tmp_path).read_text().startswith(before)


def test_the_suite_leaves_out_the_extremes(tmp_path: Path) -> None:
    found = attempt(ZERO_BIT, [_PICTURE], ("jpeg_90", "crop_5"), tmp_path, tmp_path)
    assert isinstance(found, Trials)
    assert [trial.attack for trial in found.suite] == ["jpeg_90"]
    assert found.share("jpeg_90") == 1.0
    assert found.marked[0].psnr > 40
