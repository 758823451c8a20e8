"""Children that are started again, ended together, and never left behind. The role is a real one, the lightest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from core.settings import Settings
from filigrane.supervisor import Child, Supervisor, environment

PATIENCE = 30.0


def wait_until(condition: Callable[[], bool], watch: Callable[[], None] = lambda: None) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "nothing happened"
        watch()
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    settings = Settings(data=tmp_path / "data")
    return Supervisor(environment(settings), tmp_path / "run", [Child("scheduler")])


def pid_of(supervisor: Supervisor) -> int:
    return int((supervisor.folder / "scheduler.pid").read_text())


def works(tmp_path: Path) -> Callable[[], bool]:
    return lambda: (tmp_path / "data" / "bus.sqlite").exists()


def test_a_killed_role_is_started_again_and_all_ends_cleanly(supervisor: Supervisor, tmp_path: Path) -> None:
    with supervisor:
        first = pid_of(supervisor)
        wait_until(works(tmp_path))
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: supervisor.alive() and pid_of(supervisor) != first, supervisor.watch)
        second = pid_of(supervisor)
        assert is_gone(first)
        assert supervisor.children[0].deaths == 1
    assert is_gone(second)
    assert not (supervisor.folder / "scheduler.pid").exists()


def test_who_dies_again_and_again_waits_longer_each_time(tmp_path: Path) -> None:
    child = Child("scheduler", ("--no-such-option",))
    supervisor = Supervisor(environment(Settings(data=tmp_path)), tmp_path / "run", [child], subprocess.DEVNULL)
    with supervisor:
        wait_until(lambda: child.deaths == 2, supervisor.watch)
        assert child.due > time.monotonic()


def test_who_ends_by_itself_and_was_meant_to_stays_ended(tmp_path: Path) -> None:
    child = Child("scheduler", ("--help",), once=True)
    supervisor = Supervisor(environment(Settings(data=tmp_path)), tmp_path / "run", [child], subprocess.DEVNULL)
    with supervisor:
        wait_until(lambda: child.done, supervisor.watch)
        supervisor.watch()
        assert child.process is None


def test_a_child_that_does_not_end_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start()
    pid = pid_of(supervisor)
    wait_until(works(tmp_path))
    os.kill(pid, signal.SIGSTOP)
    supervisor.stop(grace=0.3)
    assert is_gone(pid)


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time, pathlib\n"
        "from core.settings import Settings\n"
        "from filigrane.supervisor import *\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "Supervisor(environment(Settings(data=folder / 'data')), folder / 'run', [Child('scheduler')]).start()\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL) as parent:
        wait_until(works(tmp_path))
        pid = int((tmp_path / "run" / "scheduler.pid").read_text())
        assert not is_gone(pid)
        parent.kill()
        wait_until(lambda: is_gone(pid))


def test_children_see_the_settings_of_their_parent(tmp_path: Path) -> None:
    seen = environment(Settings(data=tmp_path / "here"), "http://127.0.0.1:1")
    assert seen["FILIGRANE_DATA"] == str(tmp_path / "here")
    assert seen["FILIGRANE_PUBLIC_URL"] == "http://127.0.0.1:1"
    assert seen["FILIGRANE_METRICS_LISTEN"] == ""
    own = environment(Settings(data=tmp_path, public_url="https://pictures.example.org"), "http://127.0.0.1:1")
    assert own.get("FILIGRANE_PUBLIC_URL") is None
