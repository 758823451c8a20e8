"""`filigrane batch download` over S3: what was cut goes on where it ended, also after kill -9."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.objectstore.s3 import connection
from filigrane.cli import main
from tests.filigrane.batches import made_batch
from tests.servers import s3
from tests.servers.proxy import Answer, Call, Proxy

NOW = datetime(2026, 5, 1, tzinfo=UTC)
MB = 1 << 20


@dataclass
class World:
    """A batch with one artifact, behind a proxy; `spans` are the ranges that were asked for."""

    batch: int
    whole: bytes
    proxy: Proxy
    out: Path
    spans: list[int]

    @property
    def part(self) -> Path:
        return self.out / "images.tar.part"

    def download(self) -> int:
        return main(["batch", "download", str(self.batch), "-o", str(self.out)])

    def limited(self, length: int | None, then: threading.Event | None = None) -> None:
        """From now on no more than `length` bytes of an object come; then the server is broken, or hangs."""

        def behaviour(call: Call) -> Answer | None:
            if call.method != "GET" or "images.tar" not in call.target:
                return call.forward()
            self.spans.append(int(call.header("Range").removeprefix("bytes=").split("-")[0]))
            if length is None or self.spans[-1] == 0:
                return replace(call.forward(), cut=length)
            if then is not None:
                then.wait(60)
            return Answer(503)

        self.proxy.behaviour = behaviour


@pytest.fixture
def world(tmp_path: Path, s3_server: s3.Bucket, s3_settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with Proxy(int(s3_server.endpoint.rsplit(":", 1)[1])) as proxy:
        monkeypatch.setenv("FILIGRANE_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("FILIGRANE_STORE_URL", s3_settings["store_url"])
        monkeypatch.setenv("FILIGRANE_S3_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr(connection, "TRIES", 2)
        whole = os.urandom(12 * MB)
        yield World(made_batch(whole).id, whole, proxy, tmp_path / "out", [])


def test_what_was_cut_goes_on(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.limited(5 * MB)
    assert world.download() == 2
    assert "[store_unavailable]" in capsys.readouterr().err
    kept = world.part.stat().st_size
    assert 3 * MB < kept <= 5 * MB
    world.limited(None)
    world.spans.clear()
    assert world.download() == 0
    assert (world.out / "images.tar").read_bytes() == world.whole
    assert world.spans == [kept]


def test_what_was_damaged_on_the_way_or_on_the_disk_is_not_kept(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.proxy.behaviour = lambda call: replace(call.forward(), body=bytes(12 * MB)) if call.method == "GET" else call.forward()
    assert world.download() == 1
    assert "[corrupt]" in capsys.readouterr().err
    assert list(world.out.iterdir()) == []
    world.limited(None)
    world.part.write_bytes(bytes(4 * MB))
    assert world.download() == 1
    assert list(world.out.iterdir()) == []
    assert world.download() == 0
    assert (world.out / "images.tar").read_bytes() == world.whole


def test_kill_9_in_the_middle(world: World) -> None:
    hung = threading.Event()
    world.limited(7 * MB, hung)
    command = [sys.executable, "-m", "filigrane.cli", "batch", "download", str(world.batch), "-o", str(world.out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while len(world.spans) < 2:  # it hangs now, with some of it on the disk
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
    hung.set()
    kept = world.part.stat().st_size
    assert 0 < kept <= 7 * MB
    assert not (world.out / "images.tar").exists()
    world.limited(None)
    world.spans.clear()
    assert world.download() == 0
    assert (world.out / "images.tar").read_bytes() == world.whole
    assert world.spans == [kept]
