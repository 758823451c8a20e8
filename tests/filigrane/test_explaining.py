"""What `filigrane search --explain` draws, without a matcher: its hits are given."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from api_shim.links import Links
from core.errors import InvalidInput
from core.events import SearchHit, Why
from core.repo import accounts
from core.services import Services
from core.settings import Settings
from filigrane.commands import Caller
from filigrane.commands.explaining import caption, write
from filigrane.commands.register import register_file
from tests.matcher.pictures import crop, encoded, photo

HIT = SearchHit(1, "", "copy", 31.25, None, None, True, 0.5, (1.0, 0, -60, 0, 1, -45, 0, 0, 1), Why(80, 61, 0.97, 0.93))


@pytest.fixture
def caller(tmp_path: Path) -> Iterator[Caller]:
    with Services.open(Settings(data=tmp_path / "data")) as services:
        account = services.database.transact(lambda tx: accounts.ensure_local(tx, services.settings.secret, services.clock.now())[0])
        (tmp_path / "a.png").write_bytes(encoded(photo(1), "PNG"))
        register_file(services, account.id, tmp_path / "a.png", f"{account.home}/a.png")
        yield Caller(services, account, Links("http://x", "http://x", services.settings.secret))


def test_a_sheet_is_drawn_from_the_stored_preview(caller: Caller, tmp_path: Path) -> None:
    write(caller, encoded(crop(photo(1), 0.1, 0.1, 0.8), "PNG"), [HIT], tmp_path / "why.png")
    sheet = np.asarray(Image.open(io.BytesIO((tmp_path / "why.png").read_bytes())))
    assert sheet.shape[1] > 2 * sheet.shape[0]
    query, laid = sheet[:480, 652:1292].astype(int), sheet[:480, -640:].astype(int)
    assert np.median(np.abs(query - laid)) < 12, "one laid over the other shows no seam"


@pytest.mark.parametrize("hits", [[], [SearchHit(1, "", None, None, None, None, False, None, None)]])
def test_without_a_place_there_is_nothing_to_draw(
    hits: list[SearchHit], caller: Caller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(caller, encoded(photo(1), "PNG"), hits, tmp_path / "why.png")
    assert "nothing to explain" in capsys.readouterr().err
    assert not (tmp_path / "why.png").exists()


def test_anothers_picture_is_never_shown(caller: Caller, tmp_path: Path) -> None:
    services = caller.services
    other, _ = services.database.transact(lambda tx: accounts.create(tx, services.settings.secret, "ben", now=services.clock.now()))
    write(Caller(services, other, caller.links), encoded(photo(1), "PNG"), [HIT], tmp_path / "why.png")
    assert not (tmp_path / "why.png").exists()


def test_a_file_that_cannot_be_written_is_told(caller: Caller, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot write"):
        write(caller, encoded(photo(1), "PNG"), [HIT], tmp_path / "none" / "why.png")


def test_the_caption_says_what_speaks_for_it() -> None:
    assert caption(HIT) == (
        "copy, score 31.2, 61 of 80 correspondences agree, 97% of the blocks alike (NCC 0.93), "
        "50% of the registered picture shown, mirrored"
    )
    whole = msgspec.structs.replace(HIT, why=Why(0, 0, 1.0, 0.99))
    assert "compared as a whole, 100% of the blocks alike" in caption(whole)
    assert caption(SearchHit(1, "k", None, None, 1e-12, 5, None, None, HIT.transform)) == "watermark p = 1.0e-12, payload 5"
