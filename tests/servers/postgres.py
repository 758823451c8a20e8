"""PostgreSQL: Debian's package, or a wheel where no package is, or the one that FILIGRANE_TEST_DATABASE_URL names.

As root, initdb and the server run as another user, in a folder that this user can reach. Loopback only; passwords are asked for.
"""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import URL, make_url

from core.database import Database
from tests.servers import Missing, Server, cached, debian, tell

PASSWORD: Final = "only-for-tests"
_WHEEL: Final = "pgserver==0.1.4"
_names: Final = count()
_WIPE: Final = """
DO $$ DECLARE each record; BEGIN
    SET LOCAL session_replication_role = replica;
    FOR each IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('DELETE FROM %I', each.tablename);
    END LOOP;
    FOR each IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
        EXECUTE format('ALTER SEQUENCE %I RESTART', each.sequencename);
    END LOOP;
END $$"""


@cache
def get() -> Path:
    """The folder of PostgreSQL's programs. Raises Missing."""
    found = _installed() or (debian("postgresql") and _installed()) or _wheel()
    if not found:
        raise Missing("PostgreSQL is missing: apt-get install postgresql, or name a server in FILIGRANE_TEST_DATABASE_URL")
    return found if _reachable(found) else _copied(found)


def _installed() -> Path | None:
    """The newest of Debian's versions, else what the PATH has."""
    debians = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    elsewhere = shutil.which("initdb")
    return debians[-1].parent if debians else Path(elsewhere).resolve().parent if elsewhere else None


def _wheel() -> Path | None:
    with cached("postgres-wheel") as folder:
        programs = folder / "pgserver" / "pginstall" / "bin"
        if not programs.exists() and os.environ.get("INSTALL") != "0":
            tell(f"installing the wheel {_WHEEL} into {folder} ...")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--no-deps", "--target", str(folder), _WHEEL]
            subprocess.run(pip, check=False)
        return programs if programs.exists() else None


def _reachable(programs: Path) -> bool:
    return subprocess.run([*_as_owner(), "test", "-x", str(programs / "initdb")], check=False).returncode == 0


def _copied(programs: Path) -> Path:
    """root's cache is closed to the user who runs the server: a copy of the wheel that it may read."""
    folder = Path(tempfile.mkdtemp(prefix="filigrane-postgres-programs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shutil.copytree(programs.parents[2], folder / "wheel", symlinks=True)
    _hand_over(folder)
    return folder / "wheel" / programs.relative_to(programs.parents[2])


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running server as its administrator sees it."""

    admin: URL

    def url(self, name: str) -> str:
        return self.admin.set(database=name).render_as_string(hide_password=False)

    def execute(self, statement: str, *parameters: object, database: str | None = None) -> list[Any]:
        """Runs one statement outside of any transaction; its rows."""
        dsn = self.admin.set(drivername="postgresql", database=database or self.admin.database).render_as_string(hide_password=False)
        with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def wipe(self, name: str) -> None:
        """Leaves the schema alone in a database, which is much faster than a new one."""
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)
        self.execute(_WIPE, database=name)

    @contextmanager
    def database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a new database, a copy of the template, gone afterwards."""
        name = f"test_{os.getpid()}_{next(_names)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.url(name)
        finally:
            self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """The name of a database with the newest schema, to be copied."""
        with self.database() as url:
            database = Database(url)
            database.migrate()
            database.close()
            yield str(make_url(url).database)


class Postgres(Server):
    """A server of its own, in a folder of its own that is gone after `remove`. `fsync`: what is committed survives a loss of power."""

    def __init__(self, *, fsync: bool = True, **settings: object) -> None:
        self._programs = get()
        self._settings = {"fsync": "on" if fsync else "off", **settings}
        template = _template(self._programs)
        super().__init__(Path(tempfile.mkdtemp(prefix="filigrane-postgres-")))
        shutil.copytree(template, self.data, symlinks=True)
        _hand_over(self.folder)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def cluster(self) -> Cluster:
        return Cluster(URL.create("postgresql+psycopg", "postgres", PASSWORD, "127.0.0.1", self.port, "postgres"))

    def command(self) -> Sequence[str]:
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", **self._settings}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [*_as_owner(), str(self._programs / "postgres"), "-D", str(self.data), *options]

    def ready(self) -> bool:
        try:
            return self.cluster.execute("SELECT 1") == [(1,)]
        except psycopg.OperationalError:
            return False

    def send(self, number: int) -> None:
        """Its backends are sessions of their own, so each gets the signal. SIGTERM would wait for the clients: SIGINT does not."""
        assert self.process is not None
        if number == signal.SIGTERM:
            self.process.send_signal(signal.SIGINT)
            return
        for pid in (self.process.pid, *_children(self.process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        children = _children(self.process.pid) if self.process is not None else []
        super().kill()
        for pid in children:
            while _alive(pid):
                os.sched_yield()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        self.remove()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """The server that FILIGRANE_TEST_DATABASE_URL names, else one that forgets when the machine dies. Raises Missing."""
    named = os.environ.get("FILIGRANE_TEST_DATABASE_URL")
    if named:
        yield Cluster(make_url(named))
        return
    with Postgres(fsync=False, max_connections=300, shared_buffers="32MB") as server:
        yield server.cluster


@cache
def _template(programs: Path) -> Path:
    """An initialised data folder to copy from."""
    version = subprocess.run([programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    with cached("postgres") as folder:
        template = folder / version
        if not template.exists():
            _initialise(programs, template)
    return template


def _initialise(programs: Path, template: Path) -> None:
    """A locale in which the order of texts is not the order of their bytes, since users have one; else the plain one."""
    for locale in (["--locale-provider=icu", "--icu-locale=en-US", "--locale=C"], ["--locale=C"]):
        folder = Path(tempfile.mkdtemp(prefix="filigrane-initdb-"))
        (folder / "password").write_text(PASSWORD)
        _hand_over(folder)
        command = [*_as_owner(), str(programs / "initdb"), "--no-sync", "-D", str(folder / "data"), "-U", "postgres", "-E", "UTF8"]
        command += ["-A", "scram-sha-256", f"--pwfile={folder / 'password'}", *locale]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
        if done.returncode == 0:
            shutil.copytree(folder / "data", template.with_suffix(".draft"), symlinks=True)
            template.with_suffix(".draft").rename(template)
        shutil.rmtree(folder)
        if done.returncode == 0:
            return
    raise RuntimeError(f"initdb failed: {done.stderr}")


def _owner() -> pwd.struct_passwd | None:
    """Who runs the server when we are root, whom it refuses."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def _as_owner() -> list[str]:
    owner = _owner()
    return ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--"] if owner else []


def _hand_over(folder: Path) -> None:
    owner = _owner()
    if owner is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid, follow_symlinks=False)


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def _alive(pid: int) -> bool:
    """Neither gone nor waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
