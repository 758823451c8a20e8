from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import Unavailable
from core.models import CrawledFile
from core.services import Services
from matcher.crawled import shelf
from matcher.crawled.file import PictureFileInvalid, build, draft
from matcher.crawled.shelf import Shelf
from tests.matcher.crawled.test_file import NOW, PRINTS, picture


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "_SMALL", 0)


def stored(services: Services, seed: int) -> CrawledFile:
    """In one object with something before it."""
    data, key = build([picture(seed)], [PRINTS[seed]]), f"crawled/1/{seed}"
    services.store.put(key, b"before" + data)
    made = draft(1, key, data, 1, NOW, offset=6)
    return CrawledFile(**{name: getattr(made, name) for name in made.__slots__}, id=seed, stored=NOW)


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once_whoever_asks(services: Services, tmp_path: Path) -> None:
    row, folder = stored(services, 1), tmp_path / "shelf"
    first = Shelf(services.store, folder, 1.0)
    file = first.get(row)
    assert file.picture(0) == picture(1)
    assert first.get(row) is file
    services.store.delete([row.key])
    assert Shelf(services.store, folder, 1.0).get(row).picture(0) == picture(1)  # another process, or the next life of this one


def test_those_used_longest_ago_go_and_stay_usable(services: Services, tmp_path: Path) -> None:
    rows, folder = [stored(services, seed) for seed in (1, 2, 3)], tmp_path / "shelf"
    small = Shelf(services.store, folder, 1.5 * rows[0].length / (1 << 30))
    opened = [small.get(row) for row in rows]
    assert kept(folder) == [f"{rows[2].sha256}.pictures"]
    assert [file.picture(0) for file in opened] == [picture(seed) for seed in (1, 2, 3)]
    assert small.get(rows[0]).picture(0) == picture(1)
    assert kept(folder) == [f"{rows[0].sha256}.pictures"]


def test_what_lies_there_damaged_is_fetched_again(services: Services, tmp_path: Path) -> None:
    row, folder = stored(services, 1), tmp_path / "shelf"
    Shelf(services.store, folder, 1.0).get(row)
    for damaged in (b"", b"\0" * row.length):
        (folder / f"{row.sha256}.pictures").write_bytes(damaged)
        assert Shelf(services.store, folder, 1.0).get(row).picture(0) == picture(1)
    services.store.put(row.key, b"before" + b"\0" * row.length)
    (folder / f"{row.sha256}.pictures").unlink()
    with pytest.raises(PictureFileInvalid):
        Shelf(services.store, folder, 1.0).get(row)


def test_a_disk_that_does_not_work_is_waited_for(services: Services, tmp_path: Path) -> None:
    row, folder = stored(services, 1), tmp_path / "shelf"
    folder.write_bytes(b"no folder")
    with pytest.raises(Unavailable) as raised:
        Shelf(services.store, folder, 1.0).get(row)
    assert raised.value.code == "local_disk"
