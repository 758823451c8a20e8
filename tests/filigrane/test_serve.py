"""`filigrane serve`, the real one: ready, alone on its data, able to lose any child, and gone without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import Unavailable
from filigrane.roles import ROLES
from filigrane.serve import AlreadyRunning, Running, children, free_port, healthy, lock, running_on, url_of
from tests.filigrane.test_supervisor import is_gone, wait_until

SERVE = [sys.executable, "-m", "filigrane.cli", "serve", "--port", "0", "--data"]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A `serve` that is ready, and what it said."""
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([*SERVE, str(tmp_path / "data")], stdout=subprocess.PIPE, stderr=log, text=True)
        with process:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
            process.kill()


def pids(data: Path) -> dict[str, int]:
    return {role: int((data / "run" / f"{role}.pid").read_text()) for role in ROLES if (data / "run" / f"{role}.pid").exists()}


def test_the_life_of_a_serve(serving: tuple[subprocess.Popen[str], dict[str, Any]], tmp_path: Path) -> None:
    process, said = serving
    data = tmp_path / "data"
    port = int(said["url"].rpartition(":")[2])
    assert said["ready"]
    assert healthy("127.0.0.1", port)
    assert running_on(data) == Running(process.pid, "filigrane serve", said["url"])

    second = subprocess.run([*SERVE, str(data)], capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert f"pid {process.pid}" in second.stderr
    assert said["url"] in second.stderr

    before = pids(data)
    assert list(before) == list(ROLES)
    os.kill(before["api"], signal.SIGKILL)
    wait_until(lambda: pids(data).get("api", before["api"]) != before["api"])
    wait_until(lambda: healthy("127.0.0.1", port))
    assert {role: pid for role, pid in pids(data).items() if role != "api"} == {role: pid for role, pid in before.items() if role != "api"}

    last = pids(data).values()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert all(is_gone(pid) for pid in last)
    assert pids(data) == {}
    assert running_on(data) is None


# --- the lock


def test_the_lock_admits_one_and_tells_who(tmp_path: Path) -> None:
    assert running_on(tmp_path) is None
    me = Running(os.getpid(), "filigrane serve", "http://127.0.0.1:8000")
    with lock(tmp_path, me):
        assert running_on(tmp_path) == me
        with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"), lock(tmp_path, me):
            pass
    assert running_on(tmp_path) is None
    with lock(tmp_path, me):
        pass


def test_what_a_dead_process_wrote_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "serve.lock").write_text('{"pid": 1, "command": "filigrane serve", "url": null}')
    assert running_on(tmp_path) is None


# --- addresses


def test_a_taken_port_is_said_before_anything_starts() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(Unavailable, match="cannot listen"):
            free_port("127.0.0.1", taken.getsockname()[1])
        assert not healthy("127.0.0.1", free_port("127.0.0.1", 0), timeout=0.5)


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:80"), ("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"), ("box.lan", "http://box.lan:80")],
)
def test_where_a_client_on_this_machine_goes(host: str, url: str) -> None:
    assert url_of(host, 80) == url


def test_each_role_has_a_port_of_its_own_for_figures() -> None:
    told = {child.role: list(child.arguments)[-2:] for child in children("127.0.0.1", 8000, "[::1]:9100")}
    assert told == {role: ["--metrics", f"[::1]:{9100 + place}"] for place, role in enumerate(ROLES)}
    assert all("--metrics" not in child.arguments for child in children("127.0.0.1", 8000))
    assert {child.arguments[-1] for child in children("127.0.0.1", 8000, "127.0.0.1:0")} == {"127.0.0.1:0"}
