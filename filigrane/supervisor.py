"""Roles as child processes: started, watched, started again when they die, and ended together."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import structlog

from core.settings import PREFIX, Settings

GRACE: Final = 28.0
"""Seconds between SIGTERM and SIGKILL: all is over within the 30 s that `serve` promises."""
_BACK_OFF: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY: Final = 30.0
"""Who lived that long is started again at once."""
_TICK: Final = 0.05

log = structlog.get_logger()


def environment(settings: Settings, public_url: str | None = None) -> dict[str, str]:
    """The environment in which a child sees the settings of this process; `public_url` counts where the operator set none."""
    changed = {"DATA": str(settings.data.resolve()), "METRICS_LISTEN": ""}  # one address cannot be everybody's: who has one is told it
    if public_url is not None and "public_url" not in settings.model_fields_set:
        changed["PUBLIC_URL"] = public_url
    return {**os.environ, **{PREFIX + name: value for name, value in changed.items()}}


@dataclass(slots=True)
class Child:
    role: str
    arguments: Sequence[str] = ()
    once: bool = False
    """It ends by itself when its work is done."""
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    deaths: int = 0
    """In a row, without a steady life between them."""
    due: float = 0.0
    done: bool = False


@dataclass
class Supervisor:
    """Children of this process; a context that ends them.

    Each child's standard input is a pipe that nobody writes to. It closes with this process, however that ends, and the child ends with it.
    """

    environment: Mapping[str, str]
    folder: Path
    """Gets `<role>.pid`."""
    children: Sequence[Child]
    log_to: IO[bytes] | int | None = None
    """Where the children's logs go; None: our standard error."""

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for child in self.children:
            self._spawn(child)

    def watch(self) -> None:
        """Looks once at every child: what died is started again, later each time."""
        now = time.monotonic()
        for child in self.children:
            if child.process is not None and child.process.poll() is not None:
                self._buried(child, child.process, now)
            if child.process is None and not child.done and now >= child.due:
                self._spawn(child)

    def alive(self) -> bool:
        """Whether every child runs at this moment."""
        return all(child.process is not None and child.process.poll() is None for child in self.children)

    def stop(self, grace: float = GRACE) -> None:
        """SIGTERM to all, SIGKILL to those that are left after `grace` seconds."""
        running = [child.process for child in self.children if child.process is not None]
        for process in running:
            process.terminate()
        until = time.monotonic() + grace
        while any(process.poll() is None for process in running) and time.monotonic() < until:
            time.sleep(_TICK)
        for child in self.children:
            if child.process is not None:
                self._end(child, child.process)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _spawn(self, child: Child) -> None:
        # -P: what lies in the working directory is not ours to import
        command = [sys.executable, "-P", "-m", "filigrane.cli", child.role, "--with-parent", *child.arguments]
        # A session of its own: Ctrl-C in a terminal reaches this process alone, which then ends the children in order.
        child.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self.log_to,
            env=dict(self.environment),
            start_new_session=True,
        )
        child.started = time.monotonic()
        self._note_pid(child.role, child.process.pid)
        log.info("supervisor.started", child=child.role, child_pid=child.process.pid)

    def _buried(self, child: Child, process: subprocess.Popen[bytes], now: float) -> None:
        child.done = child.once and process.returncode == 0
        if not child.done:
            child.deaths = 1 if now - child.started >= _STEADY else child.deaths + 1
            child.due = now + _BACK_OFF[min(child.deaths, len(_BACK_OFF)) - 1]
            log.warning("supervisor.died", child=child.role, child_pid=process.pid, status=process.returncode, deaths=child.deaths)
        self._close(child, process)

    def _end(self, child: Child, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            log.error("supervisor.killed", child=child.role, child_pid=process.pid)
            process.kill()
        process.wait()
        log.info("supervisor.ended", child=child.role, child_pid=process.pid, status=process.returncode)
        self._close(child, process)

    def _close(self, child: Child, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is not None:
            process.stdin.close()
        child.process = None
        (self.folder / f"{child.role}.pid").unlink(missing_ok=True)

    def _note_pid(self, role: str, pid: int) -> None:
        draft = self.folder / f"{role}.pid.new"
        draft.write_text(f"{pid}\n")
        draft.replace(self.folder / f"{role}.pid")
