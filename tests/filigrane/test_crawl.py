"""`filigrane crawl` without a `serve`: it runs the roles itself, and the second cycle goes on from the first."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from core.clock import ManualClock
from core.repo import accounts, crawls
from core.services import Services
from core.settings import Settings
from filigrane.commands.cycle import Others
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


def test_where_roles_run_elsewhere_commands_leave_the_work_to_them(kafka_server: str, tmp_path: Path) -> None:
    """The role lies in the same folder, whose first place its crawler has taken: a second one under that name would die again and again."""
    with Site({"/": Reply(b"nothing but this")}) as site, ExitStack() as stack:
        environment = {
            **os.environ,
            "FILIGRANE_ALLOW_NETWORKS": "127.0.0.0/8",
            "FILIGRANE_BUS_URL": f"kafka://{kafka_server}",
            "FILIGRANE_TOPIC_PREFIX": f"crawl-{os.getpid()}.",
            "FILIGRANE_DATA": str(tmp_path),
        }
        commands = [sys.executable, "-m", "filigrane.cli"]
        crawler = stack.enter_context(subprocess.Popen([*commands, "crawler"], env=environment, stderr=subprocess.DEVNULL))
        stack.callback(crawler.kill)
        done = subprocess.run(
            [*commands, "crawl", f"{site.url}/", "--download-delay", "0"], capture_output=True, text=True, timeout=120, env=environment
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["crawl_cycle"] == 1
        assert "supervisor" not in done.stderr
        added = subprocess.run(
            [*commands, "session", "add", f"{site.url}/"], capture_output=True, text=True, timeout=60, env=environment, check=True
        )
        assert "`filigrane crawler`" in added.stderr
        crawler.send_signal(signal.SIGTERM)
        assert crawler.wait(30) == 0
    assert not (tmp_path / "serve.lock").exists()


def test_that_nobody_crawls_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = ManualClock()
    with Services.open(Settings(data=tmp_path), clock=clock) as services:
        with services.database.write() as tx:
            account, _ = accounts.ensure_local(tx, services.settings.secret, clock.now())
            urls = ["http://example.org/"]
            session = crawls.create_session(tx, account.id, start_urls=urls, domain="example.org", now=clock.now())
        others = Others(services, session.id)
        others.watch()
        assert capsys.readouterr().err == ""
        clock.advance(20)
        others.watch()
        others.watch()
        assert capsys.readouterr().err.count("no crawler has begun yet") == 1
