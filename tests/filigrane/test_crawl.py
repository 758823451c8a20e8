"""`filigrane crawl` without a `serve`: it runs the roles itself, and the second cycle goes on from the first."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from filigrane.serve import running_on
from tests.site import Reply, Site

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db00000000049454e44ae426082"
)


def crawl(url: str, data: Path, code: int = 0) -> Any:
    command = [sys.executable, "-m", "filigrane.cli", "crawl", url, "--no-search", "--download-delay", "0", "--data", str(data)]
    environment = {**os.environ, "FILIGRANE_ALLOW_NETWORKS": "127.0.0.0/8", "FILIGRANE_SEGMENT_SECONDS": "0.5"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_a_crawl_runs_by_itself_and_leaves_nothing_running(tmp_path: Path) -> None:
    pages = {
        "/": Reply(b'<a href="/more">more</a> <img src="/dot.png" alt="a dot">'),
        "/more": Reply(b'<img src="/dot.png">'),
        "/dot.png": Reply(PIXEL, content_type="image/png"),
    }
    with Site(pages) as site:
        first = crawl(f"{site.url}/", tmp_path / "data")
        second = crawl(f"{site.url}/", tmp_path / "data")
    assert (first["pages"]["count"], first["images"]["count"]) == (3, 2)  # robots.txt is a request too
    assert (first["session"], first["crawl_cycle"]) == (second["session"], 1)
    assert second["crawl_cycle"] == 2
    assert running_on(tmp_path / "data") is None
    assert list((tmp_path / "data" / "run").glob("*.pid")) == []
    [log] = (tmp_path / "data" / "objects").rglob("batches/1/1/*/images.log*")
    assert gzip.decompress(log.read_bytes()).count(b"/dot.png") == 2


def test_a_site_that_does_not_answer_is_1_and_has_its_batch(tmp_path: Path) -> None:
    with Site({}) as site:
        gone = site.url
    batch = crawl(f"{gone}/", tmp_path / "data", code=1)
    assert batch["images"]["count"] == 0
