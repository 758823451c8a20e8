"""A whole deployment on loopback: the roles as processes with folders of their own, over the three servers, all of which may be killed."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from core.settings import Settings
from tests.servers import Server, free_port, kafka, postgres, s3

ROLES = ("api", "crawler", "matcher", "scheduler")


@dataclass
class Machine:
    """One process of a role, and its local folder. A restart finds the folder as it was left."""

    name: str
    role: str
    folder: Path
    environment: Mapping[str, str]
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    before: int = 0
    """Bytes of the log from earlier starts."""

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "filigrane.cli", self.role, *self.arguments]
        environment = {**os.environ, **self.environment, "FILIGRANE_DATA": str(self.folder)}
        with (self.folder / "log").open("ab") as log:
            self.before = log.tell()
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def listens(self) -> bool:
        """It hears SIGTERM: before that, the signal ends the interpreter with a code of its own."""
        return b'"event": "role.started"' in (self.folder / "log").read_bytes()[self.before :]

    def stop(self, patience: float = 30.0) -> int:
        """SIGTERM; its exit code. Raises subprocess.TimeoutExpired when it does not end in time."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def resident(self) -> int:
        """Bytes of memory, of the process and its children."""
        assert self.process is not None
        return sum(_resident(pid) for pid in [self.process.pid, *_children(self.process.pid)])


@dataclass
class Deployment:
    """Servers and machines by name."""

    folder: Path
    servers: Mapping[str, Server]
    environment: Mapping[str, str]
    machines: dict[str, Machine] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The same settings for a process that looks on."""
        given = {
            name.removeprefix("FILIGRANE_").lower(): value for name, value in self.environment.items() if name.startswith("FILIGRANE_")
        }
        return Settings(data=self.folder / "onlooker", **given)  # type: ignore[arg-type]

    def start(self, role: str, *arguments: str) -> Machine:
        """One more process of the role."""
        name = f"{role}-{sum(machine.role == role for machine in self.machines.values()) + 1}"
        machine = self.machines[name] = Machine(name, role, self.folder / name, self.environment, arguments)
        machine.start()
        return machine

    def start_api(self) -> str:
        """An API process; where it answers."""
        port = free_port()
        self.start("api", "--port", str(port))
        return f"http://127.0.0.1:{port}"

    def of(self, role: str) -> list[Machine]:
        return [machine for machine in self.machines.values() if machine.role == role]

    def close(self) -> None:
        for machine in self.machines.values():
            if machine.process is not None and machine.process.poll() is None:
                machine.kill()


@contextmanager
def deployment(folder: Path, **settings: str) -> Iterator[Deployment]:
    """Three servers that run, and machines as they are started; all of them are gone at the end. `settings` without FILIGRANE_."""
    with ExitStack() as stack:
        bus = stack.enter_context(kafka.Kafka(folder / "kafka"))
        store = stack.enter_context(s3.kind()(folder / "s3"))
        database = stack.enter_context(postgres.Postgres())
        servers: dict[str, Server] = {"kafka": bus, "s3": store, "postgres": database}
        environment = {
            "FILIGRANE_DATABASE_URL": stack.enter_context(database.cluster.database()),
            "FILIGRANE_BUS_URL": f"kafka://{bus.bootstrap}",
            "FILIGRANE_SECRET_KEY": secrets.token_hex(16),
            "FILIGRANE_ALLOW_NETWORKS": "127.0.0.0/8",
            **store.bucket().environment("filigrane"),
            **{f"FILIGRANE_{name.upper()}": value for name, value in settings.items()},
        }
        stack.enter_context(_credentials(environment))
        made = Deployment(folder, servers, environment)
        stack.callback(made.close)
        yield made


@contextmanager
def _credentials(environment: Mapping[str, str]) -> Iterator[None]:
    """Who looks on from this process finds them where boto3 looks."""
    before = dict(os.environ)
    os.environ.update({name: value for name, value in environment.items() if name.startswith("AWS_")})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _children(pid: int) -> list[int]:
    try:
        direct = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return [*direct, *(below for child in direct for below in _children(child))]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
