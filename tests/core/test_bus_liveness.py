from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.bus.liveness import identity, is_gone

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def test_this_process_is_not_gone() -> None:
    assert identity()
    assert not is_gone(identity())


def test_killed_process_is_gone_even_before_it_is_waited_for() -> None:
    script = "from core.bus.liveness import identity; print(identity(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        named = process.stdout.readline()
        assert not is_gone(named)
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert is_gone(named), "a zombie"
    assert is_gone(named)


def test_the_same_number_given_to_another_process_is_another_process() -> None:
    namespace, pid, start = identity().split()
    assert is_gone(f"{namespace} {pid} {int(start) - 1}")


def test_what_cannot_be_known_is_not_gone() -> None:
    assert not is_gone("")
    assert not is_gone("pid:[1] 999999999 1")
