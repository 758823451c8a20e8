from __future__ import annotations

import csv
import gzip
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.segments.csvlog import DOCUMENTS, IMAGES, PAGES, SKIPPED, VIDEOS, CsvLog, Value

CELLS = st.one_of(st.text(max_size=30), st.sampled_from(['"', ",", "\r\n", "\n", "\r", '"\n,"', "\0", " a ", "=1+1", "@x", "'"]))
ROWS = st.lists(st.dictionaries(st.sampled_from(SKIPPED), CELLS), max_size=8)
SHARED_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)


def read(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def write(path: Path, *rows: Mapping[str, Value], columns: tuple[str, ...] = SKIPPED) -> list[dict[str, str]]:
    with CsvLog(path, columns) as log:
        for row in rows:
            log.write(row)
        assert log.count == len(rows)
    return read(path)


@SHARED_FIXTURE
@given(rows=ROWS)
def test_any_text_comes_back(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    expected = [{column: row.get(column, "").replace("\0", "\ufffd") for column in SKIPPED} for row in rows]
    assert write(tmp_path / "log", *rows) == expected


def test_the_columns_are_the_contracts() -> None:
    assert ",".join(IMAGES) == (
        "url,page_url,status,content_type,width,height,bytes,md5,sha256,last_modified,alt,credit,offset,crawled_at,outcome,reason"
    )
    assert ",".join(PAGES) == "url,referrer,depth,status,content_type,bytes,sha256,etag,last_modified,fetched_at,outcome,reason"
    assert ",".join(SKIPPED) == "url,page_url,reason,count"
    assert VIDEOS == DOCUMENTS == IMAGES


def test_the_bytes_are_rfc_4180(tmp_path: Path) -> None:
    write(tmp_path / "log", {"url": 'a"b', "page_url": "c,d", "reason": "é\nf", "count": 3})
    assert gzip.decompress((tmp_path / "log").read_bytes()) == 'url,page_url,reason,count\r\n"a""b","c,d","é\nf",3\r\n'.encode()


def test_values(tmp_path: Path) -> None:
    at = datetime(2026, 11, 23, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    (row,) = write(tmp_path / "log", {"url": None, "page_url": at, "reason": at.astimezone(UTC) + timedelta(microseconds=5), "count": 0})
    assert row == {"url": "", "page_url": "2026-11-23T10:00:00Z", "reason": "2026-11-23T10:00:00.000005Z", "count": "0"}


def test_what_utf8_cannot_say_is_replaced(tmp_path: Path) -> None:
    assert write(tmp_path / "log", {"url": "a\ud800b"})[0]["url"] == "a?b"


def test_formulas_stay_as_they_stood_on_the_page(tmp_path: Path) -> None:
    assert write(tmp_path / "log", {"reason": "=HYPERLINK(1)"})[0]["reason"] == "=HYPERLINK(1)"


def test_an_empty_log_has_its_header(tmp_path: Path) -> None:
    assert write(tmp_path / "log", columns=PAGES) == []
    assert gzip.decompress((tmp_path / "log").read_bytes()) == ",".join(PAGES).encode() + b"\r\n"


def test_the_same_rows_make_the_same_bytes(tmp_path: Path) -> None:
    rows: list[dict[str, Value]] = [{"url": f"http://a/{number}", "count": number} for number in range(1000)]
    for name in ("one", "another"):
        write(tmp_path / name, *rows)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "another").read_bytes()
    subprocess.run(["gzip", "-t"], check=True, input=(tmp_path / "one").read_bytes(), capture_output=True)


def test_mistakes_are_said(tmp_path: Path) -> None:
    with CsvLog(tmp_path / "log", SKIPPED) as log:
        with pytest.raises(ValueError, match="no such column: colour"):
            log.write({"colour": "red"})
        with pytest.raises(ValueError, match="naive"):
            log.write({"url": datetime(2026, 1, 1)})  # noqa: DTZ001
        assert log.count == 0
