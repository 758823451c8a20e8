from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import filigrane
from tests.matcher.flat import sky
from tests.matcher.pictures import crop, jpeg, mirror, photo, resize


def test_mark_and_detect() -> None:
    marked, registration = filigrane.embed(photo(1))
    again = filigrane.Registration.from_bytes(registration.to_bytes())
    found = filigrane.detect(jpeg(resize(marked, 0.7), 70), again)
    assert (found.marked, found.payload) == (True, None)
    assert found.p_value <= 1e-9
    assert found.transform is not None
    assert found.transform.shape == (3, 3)
    assert not filigrane.detect(photo(1), again).marked


def test_index(tmp_path: Path) -> None:
    index = filigrane.Index()
    index.add("one", photo(1))
    index.add(2, photo(2))
    assert len(index) == 2
    (hit,) = index.search(mirror(crop(photo(1), 0.1, 0.1, 0.7)))
    assert (hit.media_id, hit.verdict, hit.mirrored) == ("one", "copy", True)
    assert hit.score > 5
    assert hit.overlap == pytest.approx(0.5, abs=0.05)
    assert hit.transform is not None
    index.save(tmp_path / "index")
    again = filigrane.Index.load(tmp_path / "index")
    assert [h.media_id for h in again.search(photo(2))] == [2]
    again.remove(2)
    assert (len(again), again.search(photo(2))) == (1, [])
    with pytest.raises(KeyError):
        again.remove(2)


def test_adding_tells_what_cannot_be_found_again() -> None:
    index = filigrane.Index()
    assert index.add("photo", photo(1)) is None
    gradient = np.repeat(np.tile(np.arange(60, 200, dtype=np.uint8), (100, 1))[..., None], 3, axis=2)
    assert index.add("gradient", gradient) == "a plain gradient: copies cannot be told from other pictures, so none will be found"
    clouds = np.repeat(sky(1)[..., None], 3, axis=2)
    assert index.add("clouds", clouds) == "too little texture: only plain copies will be found"
    assert [hit.media_id for hit in index.search(clouds) if hit.verdict == "copy"] == ["clouds"]
    assert (index.add("black", np.zeros((50, 50, 3), np.uint8)) or "").startswith("no texture")


def test_similar_is_not_verified_and_transforms_are_known() -> None:
    index = filigrane.Index()
    index.add("one", photo(1))
    (hit,) = index.search(photo(1), similar=True)
    assert (hit.media_id, hit.verdict, hit.transform) == ("one", None, None)
    assert hit.score > 5
    with pytest.raises(ValueError, match="scale, affine, perspective"):
        index.search(photo(1), transform="bend")  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"", b"FGI1", b"FGI1abcdefgh", b"other"])
def test_other_files_are_no_index(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "index").write_bytes(data)
    with pytest.raises(filigrane.IndexInvalid):
        filigrane.Index.load(tmp_path / "index")


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    with pytest.raises(OSError, match="index"):
        filigrane.Index().save(tmp_path / "index")
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_the_import_is_light() -> None:
    code = "import filigrane, sys; print([m for m in ('numpy', 'cv2', 'faiss', 'sqlalchemy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    with pytest.raises(AttributeError):
        filigrane.nothing  # noqa: B018
