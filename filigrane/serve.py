"""`filigrane serve`: every role on one machine, and the lock by which others know of it."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import structlog

from core.disk import private_folder
from core.errors import Conflict, Unavailable
from core.settings import Settings
from filigrane.roles import ROLES
from filigrane.supervisor import Child, Supervisor, environment

_TICK: Final = 0.1
_ASK: Final = 1.0
"""Seconds that others may hold the lock while they look."""
CRAWLER: Final = "local"
"""The place of our crawler: with a name it starts again in its own, however slowly its predecessor ends."""

log = structlog.get_logger()


class AlreadyRunning(Conflict):
    """Another process runs roles on this data."""

    default_code = "already_running"


@dataclass(frozen=True, slots=True)
class Running:
    """Who runs roles on a data folder, as the lock file tells."""

    pid: int
    command: str
    url: str | None = None


@contextmanager
def lock(data: Path, running: Running) -> Iterator[None]:
    """Holds the data folder: one `serve` (or one command that runs roles itself) at a time. The lock goes with the process.

    Raises AlreadyRunning.
    """
    private_folder(data)
    with (data / "serve.lock").open("a+") as file:
        if not _flock(file.fileno(), _ASK):
            raise AlreadyRunning(_said(data, _read(data)))
        file.truncate(0)
        file.write(json.dumps(asdict(running)))
        file.flush()
        yield
        file.truncate(0)


def running_on(data: Path) -> Running | None:
    """Who holds the data folder now; None when nobody does."""
    try:
        file = (data / "serve.lock").open("r")
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(data)
    return None


def _flock(descriptor: int, patience: float) -> bool:
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(_TICK / 2)
        else:
            return True


def _read(data: Path) -> Running:
    try:
        return Running(**json.loads((data / "serve.lock").read_text()))
    except (ValueError, TypeError):
        return Running(0, "filigrane")  # taken this moment, not written yet


def _said(data: Path, running: Running) -> str:
    where = f" at {running.url}" if running.url else ""
    return f"`{running.command}` (pid {running.pid}) runs on {data}{where}; stop it first or use another --data"


def children(host: str, port: int, metrics: str = "") -> list[Child]:
    """Every role; where figures are to be had at `host:port`, each at the port after the other's."""
    address = {"api": ("--host", host, "--port", str(port)), "crawler": ("--name", CRAWLER)}
    return [Child(role, (*address.get(role, ()), *_metrics(metrics, place))) for place, role in enumerate(ROLES)]


def _metrics(listen: str, place: int) -> tuple[str, ...]:
    host, _, port = listen.rpartition(":")
    return ("--metrics", f"{host}:{int(port) + place if int(port) else 0}") if listen else ()


def url_of(host: str, port: int) -> str:
    """Where a client on this machine reaches what listens there."""
    host = _reached(host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _reached(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def free_port(host: str, port: int) -> int:
    """The port, or for 0 one that is free now.

    Raises:
        Unavailable: another program has it, or the host is not ours.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}", code="address_in_use") from error


def healthy(host: str, port: int, timeout: float = 2.0) -> bool:
    """Whether `GET /healthz` answers 200."""
    connection = http.client.HTTPConnection(_reached(host), port, timeout=timeout)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def serve(settings: Settings, host: str, port: int) -> None:
    """Runs every role until SIGTERM or SIGINT; then drains.

    Raises:
        AlreadyRunning: another process runs roles on this data.
        Unavailable: the port is taken.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    port = free_port(host, port)
    url = url_of(host, port)
    with (
        lock(settings.data, Running(os.getpid(), "filigrane serve", url)),
        Supervisor(environment(settings, url), settings.data / "run", children(host, port, settings.metrics_listen)) as supervisor,
    ):
        _watch(supervisor, host, port, stop, {"url": url, "data": str(settings.data.resolve()), "pid": os.getpid()})
    log.info("serve.ended")


def _watch(supervisor: Supervisor, host: str, port: int, stop: threading.Event, facts: dict[str, object]) -> None:
    ready = False
    while not stop.wait(_TICK):
        supervisor.watch()
        if not ready and healthy(host, port):
            ready = True
            log.info("serve.ready", **facts)
            sys.stdout.write(json.dumps({"ready": True, **facts}) + "\n")
            sys.stdout.flush()
    log.info("serve.ending")
