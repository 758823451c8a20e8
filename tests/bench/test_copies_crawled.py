"""The part about crawled pictures: synthetic ones are files like others, real ones are found among them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from bench.copies import crawled
from bench.copies.run import Run
from bench.copies.sets import Picture, Sets
from tests.matcher.pictures import photo


def test_real_pictures_are_found_among_synthetic_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crawled, "_QUICK", (200, 400))
    monkeypatch.setattr(crawled, "_REGISTERED", 1)
    monkeypatch.setattr(crawled, "MOST", 128)
    sets = Sets([Picture(f"p{n}", partial(photo, n)) for n in range(2)], [Picture("d", partial(photo, 9))])
    run = Run(sets, "dev", ("mirror", "gray"), 0, True, tmp_path, tmp_path, tmp_path, tmp_path, None)
    result = crawled.run(run)
    assert [(row["crawled"], row["files"], row["matches"], row["hits"]) for row in result["rows"]] == [(200, 3, 2, [2]), (400, 5, 2, [2])]
    assert all(1_000 < row["bytes"] < 3_000 for row in result["rows"])
    assert any("200" in line for line in crawled.markdown(result))
