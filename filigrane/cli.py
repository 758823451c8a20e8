"""The `filigrane` command: what can be said. What is done is in `commands`, loaded only when it is asked for.

Results are JSON on stdout; progress and logs go to stderr. Exit codes: 0 done, 1 it failed, 2 wrong usage or settings, another process
in the way, or a dependency that does not answer.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from core import scrub
from core.errors import Corrupt, FiligraneError, Unavailable
from core.version import version

OK: Final = 0
FAILED: Final = 1
REFUSED: Final = 2
_TOPICS: Final = ("images", "features", "searches")
"""Those with dead letters."""

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; argparse itself exits with 2 for wrong usage."""
    given = parser().parse_args(arguments)
    return run(given)


def run(given: argparse.Namespace) -> int:
    """What `main` does once the arguments are read."""
    module, _, name = given.command.partition(":")
    command: Command = getattr(importlib.import_module(f"filigrane.commands.{module}"), name)
    try:
        return command(given)
    except FiligraneError as error:
        sys.stderr.write(f"filigrane: {scrub.text(error.details)} [{error.code}]\n")
        return _code_of(error)
    except KeyboardInterrupt:
        sys.stderr.write("filigrane: interrupted\n")
        return FAILED


def _code_of(error: FiligraneError) -> int:
    from filigrane.serve import AlreadyRunning

    unreachable = isinstance(error, Unavailable) and not isinstance(error, Corrupt)
    return REFUSED if unreachable or isinstance(error, AlreadyRunning) or error.code == "settings_invalid" else FAILED


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="filigrane", description="Marks pictures invisibly, crawls web sites, keeps the evidence, finds copies."
    )
    top.add_argument("--version", action="version", version=f"filigrane {version()}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_serve(commands)
    _add_roles(commands)
    _add_account(commands)
    _add_session(commands)
    _add_batch(commands)
    _add_dead(commands)
    _add_crawl(commands)
    _add_register(commands)
    _add_search(commands)
    _add_doctor(commands)
    return top


# argparse keeps the type of what add_subparsers returns to itself
_Commands = Any


def _add(commands: _Commands, name: str, command: str, text: str, *, account: bool = True) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    added.set_defaults(command=command)
    added.add_argument("--data", type=Path, metavar="DIR", help="the data folder (default: FILIGRANE_DATA, then ./filigrane-data)")
    if account:
        added.add_argument("--account", default="local", metavar="NAME", help="whose (default: local, made on first use)")
    return added


def _group(commands: _Commands, name: str, text: str) -> _Commands:
    return commands.add_parser(name, help=text, description=text).add_subparsers(title="commands", metavar="COMMAND", required=True)


def _add_address(added: argparse.ArgumentParser) -> None:
    added.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    added.add_argument("--port", type=_port, default=8000, help="port to listen on, 0 for a free one (default: %(default)s)")


def _add_metrics(added: argparse.ArgumentParser) -> None:
    text = "answer /metrics, /healthz and /readyz here (default: FILIGRANE_METRICS_LISTEN, else nowhere)"
    added.add_argument("--metrics", type=_address, metavar="HOST:PORT", help=text)


def _add_serve(commands: _Commands) -> None:
    added = _add(commands, "serve", "roles:serve", "run everything on this machine until SIGTERM", account=False)
    _add_address(added)
    _add_metrics(added)


def _add_roles(commands: _Commands) -> None:
    texts = {
        "api": "answer HTTP requests",
        "crawler": "crawl the sessions that are due",
        "matcher": "look for registered pictures in what was crawled",
        "scheduler": "wake sessions, heal, sweep",
    }
    for role, text in texts.items():
        added = _add(commands, role, "roles:run", f"one role: {text}", account=False)
        added.set_defaults(role=role)
        added.add_argument("--with-parent", action="store_true", help="end when standard input ends (as a child of `serve`)")
        _add_metrics(added)
        if role == "api":
            _add_address(added)
        if role == "crawler":
            added.add_argument("--name", help="its local folder (default: the first that is free: local, local-2, ...)")
            added.add_argument("--only-session", type=int, metavar="ID", help="one cycle of this session, then end")


def _add_account(commands: _Commands) -> None:
    accounts = _group(commands, "account", "accounts")
    create = _add(accounts, "create", "account:create", "make an account; prints its token", account=False)
    create.add_argument("name")
    create.add_argument("--password", metavar="P", help="to get the token over the API; `-` reads it from standard input")
    create.add_argument("--email", default="", metavar="E")
    quota = _add(accounts, "quota", "account:quota", "how much an account may register, and what it has", account=False)
    quota.add_argument("name")
    for option, what in (("--images", "pictures"), ("--bytes", "bytes of them")):
        quota.add_argument(option, type=_maximum, default=argparse.SUPPRESS, metavar="N", help=f"most {what}; `none`: no maximum")


def _maximum(text: str) -> int | None:
    if text == "none":
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise argparse.ArgumentTypeError("is a number, or none")
    return int(text)


def _add_session(commands: _Commands) -> None:
    sessions = _group(commands, "session", "sites that are crawled again and again")
    add = _add(sessions, "add", "session:add", "add sites: one session for each site among the URLs")
    add.add_argument("urls", nargs="*", metavar="URL")
    add.add_argument("--start-urls", type=Path, metavar="FILE", help="more of them: one a line, # begins a comment")
    again = add.add_mutually_exclusive_group()
    again.add_argument("--interval", type=float, metavar="S", help="seconds between the starts of two crawls (default: crawled once)")
    again.add_argument("--cron", metavar='"M H D M W"', help="when crawls start, UTC")
    add.add_argument("--shared", action="store_true", default=None, help="matched against every account's pictures")
    _add_pace(add)
    _add(sessions, "list", "session:list_all", "all sessions of the account")
    for name, text in {
        "show": "one session",
        "pause": "end its crawl, begin no other",
        "resume": "let a paused session be crawled",
        "run": "crawl it now and wait for the batch",
        "delete": "delete it with its batches; matches stay",
    }.items():
        _add(sessions, name, f"session:{name}", text).add_argument("id", type=int, metavar="ID")


def _add_pace(added: argparse.ArgumentParser) -> None:
    added.add_argument("--crawl-delay", type=float, metavar="S", help="seconds that one crawl may take (default: 300)")
    added.add_argument("--download-delay", type=float, metavar="S", help="seconds between two requests to the site (default: 1)")
    added.add_argument("--download-timeout", type=float, metavar="S", help="seconds that an answer may take (default: 15)")
    added.add_argument("--max-pages", type=int, metavar="N", help="pages of one crawl (default: no limit)")
    added.add_argument("--no-search", action="store_true", help="keep what is crawled, look for no pictures in it")


def _add_batch(commands: _Commands) -> None:
    batches = _group(commands, "batch", "what crawls left")
    listed = _add(batches, "list", "batch:list_all", "all batches, the newest first")
    listed.add_argument("--session", type=int, metavar="ID", help="of this session only")
    download = _add(batches, "download", "batch:download", "copy a batch's artifacts, checked; goes on where it was cut")
    download.add_argument("id", type=int, metavar="ID")
    download.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")


def _add_dead(commands: _Commands) -> None:
    dead = _group(commands, "dead", "dead letters: messages that could not be worked on")
    for name, command, text in (
        ("list", "dead:list_all", "what lies there, with the reasons"),
        ("replay", "dead:replay", "have them tried again; what fails again lies there again (searches are too late by then)"),
    ):
        added = _add(dead, name, command, text, account=False)
        added.add_argument("--topic", action="append", dest="topics", choices=_TOPICS, help="of this topic only (default: all)")
        added.add_argument("--code", metavar="C", help="with this error code only")


def _add_crawl(commands: _Commands) -> None:
    crawl = _add(commands, "crawl", "session:crawl", "crawl a site once, now; prints the batch")
    crawl.add_argument("url", metavar="URL")
    _add_pace(crawl)


def _add_register(commands: _Commands) -> None:
    register = _add(
        commands, "register", "register:register", "register pictures, or registrations (LMK) of marked ones: files, or folders"
    )
    register.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    register.add_argument("--to", default="", metavar="FOLDER", help="folder of the media tree, below the account's home")
    register.add_argument("--watermark", action="store_true", help="mark each picture with a key of its own; the marked copies go to --out")
    register.add_argument("--out", type=Path, metavar="DIR", help="where marked copies are written")
    register.add_argument("--payload", type=int, metavar="N", help="a number that the mark carries, 0 to 16777215; matches say it")


def _add_search(commands: _Commands) -> None:
    search = _add(commands, "search", "search:search", "which registered and which crawled pictures does this file show?")
    search.add_argument("file", type=Path, metavar="FILE")
    search.add_argument("--transform", choices=["scale", "affine", "perspective"], default="scale", help="how it may be distorted")
    search.add_argument("--category", choices=["private", "web"], help="only registered, or only crawled pictures (default: both)")
    search.add_argument("--similar", action="store_true", help="what looks alike, unverified and faster")
    explain = "draw why the first of the registered pictures is a match: both side by side, and one laid over the other"
    search.add_argument("--explain", type=Path, metavar="FILE.png", help=explain)


def _add_doctor(commands: _Commands) -> None:
    text = "look at settings, database, object store, bus and roles, and say what to do; exit code 0, 1 (warnings) or 2 (failures)"
    doctor = _add(commands, "doctor", "doctor:doctor", text, account=False)
    doctor.add_argument("--json", action="store_true", help="findings as JSON, at the end")
    one = doctor.add_mutually_exclusive_group()
    one.add_argument("--quick", action="store_true", help="only ask the role at FILIGRANE_METRICS_LISTEN whether it is alive")
    one.add_argument(
        "--accept-restored",
        action="store_true",
        help="the database comes from a backup that is older than the object store: reconcile them (every role is stopped)",
    )


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("a port is 0 to 65535")
    return value


def _address(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host:
        raise argparse.ArgumentTypeError("an address is HOST:PORT")
    return f"{host}:{_port(port)}"


if __name__ == "__main__":
    sys.exit(main())
