"""The real servers that tests use: Kafka, S3 and PostgreSQL, each a module that says how to get it, start it, kill it.

`get()` of a module fetches what it needs into a cache (FILIGRANE_TEST_CACHE, else ~/.cache/filigrane-tests), once, under a lock,
and raises `Missing` with the command that helps where it cannot. `start(folder)` gives a running `Server`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

CACHE: Final = Path(os.environ.get("FILIGRANE_TEST_CACHE") or Path.home() / ".cache" / "filigrane-tests")
PATIENCE: Final = 60.0


class Missing(Exception):
    """A server cannot be had here. The text says what is missing and which command helps."""


class Server(ABC):
    """One server process on loopback. It keeps its port and its data over `kill` and `launch`."""

    process: subprocess.Popen[bytes] | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What is run."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers."""

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def launch(self) -> Self:
        """Starts the process and returns once it answers."""
        self.spawn()
        self.wait()
        return self

    def spawn(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                list(self.command()), env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + PATIENCE
        while not self.ready():
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{type(self).__name__} did not start:\n{(self.folder / 'server.log').read_text()[-3000:]}")
            time.sleep(0.05)

    def send(self, number: int) -> None:
        """A signal to the whole process group."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for what does not end."""
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reap()

    def pause(self) -> None:
        self.send(signal.SIGSTOP)

    def resume(self) -> None:
        self.send(signal.SIGCONT)

    def _reap(self) -> None:
        if self.process is not None:
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        return self.launch()

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def cached(name: str) -> Iterator[Path]:
    """The folder of a part in the cache, for one process at a time."""
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def tell(line: str) -> None:
    sys.stderr.write(f"tests: {line}\n")
    sys.stderr.flush()


def debian(*packages: str) -> bool:
    """Installs Debian packages after saying so, where that may be done: as root on a Debian-like machine, unless INSTALL=0."""
    if os.environ.get("INSTALL") == "0" or os.geteuid() != 0 or shutil.which("apt-get") is None:
        return False
    tell(f"installing {' '.join(packages)} from Debian (INSTALL=0 forbids it) ...")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-q", "update"], ["apt-get", "-qy", "install", "--no-install-recommends", *packages]):
        if subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode:
            return False
    return True
