"""The demo: the whole job on embedded parts. It serves a little web on loopback, registers pictures, crawls, and shows what was found."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from sqlalchemy import exists, select

import filigrane
from api_shim import present, schemas
from api_shim.links import Links
from core import outbox, telemetry
from core.errors import FiligraneError, Unavailable
from core.events import IMAGES
from core.models import Batch, CrawlSession, Match, Segment
from core.repo import accounts, crawls, matches
from core.services import Services
from core.settings import PREFIX, load
from core.shards import GROUP
from core.urls import registrable_domain
from filigrane.demo import show
from filigrane.demo.report import Report, compare, expected
from filigrane.demo.site import Original, Served, build, serve
from filigrane.serve import Running, children, free_port, healthy, lock, url_of
from filigrane.supervisor import Supervisor
from matcher import registrar
from matcher.pixels import U8
from matcher.watermark.registration import Registration

HOST: Final = "127.0.0.1"
PATIENCE: Final = 150.0
"""Seconds after which what was not found counts as missed."""
DELAY: Final = 0.05
_TICK: Final = 0.1


def run(*, once: bool = False, svg: Path | None = None) -> int:
    """Runs the demo; 0 when every planted copy was found and nothing else, else 1. Without `once` it serves until Ctrl-C first."""
    telemetry.configure("demo", level=logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="filigrane-demo-") as folder, ExitStack() as stack:
            return 0 if _run(Path(folder), console, stack, once, svg).good else 1
    except KeyboardInterrupt:
        return 1
    except FiligraneError as error:
        console.print(f"[red]{error.details}[/]")
        return 1


@dataclass
class Demo:
    """Everything that runs."""

    console: Console
    services: Services
    supervisor: Supervisor
    url: str
    served: Served
    account_id: int = 0
    token: str = ""
    sessions: dict[str, int] = field(default_factory=dict)
    """Site of the plan -> session."""

    @property
    def links(self) -> Links:
        return Links(self.url, self.url, self.services.settings.secret)


def _run(folder: Path, console: Console, stack: ExitStack, once: bool, svg: Path | None) -> Report:
    started = time.monotonic()
    services, supervisor, url = _start(folder, stack)  # the roles get ready while the sites are built
    with console.status("drawing pictures and building three little web sites"):
        plan = build(folder / "web", mark=_mark)
        served = stack.enter_context(serve(plan))
    console.print(f"Serving {len(plan.sites)} sites on {HOST}: {', '.join(plan.titles[site] for site in plan.sites)}")
    demo = Demo(console, services, supervisor, url, served)
    _register(demo, plan.originals)
    with console.status("waiting for api, crawler, matcher and scheduler"):
        _wait_until_healthy(demo)
    _add_sessions(demo)
    report = _follow(demo)
    seconds = time.monotonic() - started
    show.summary(console, served, report, seconds, DELAY)
    show.where_to_look(console, url, demo.token, _batches(demo))
    if svg is not None:
        show.picture(svg, served, expected(served), _matches(demo), report, seconds, DELAY)
    if not once:
        console.print("\nServing until Ctrl-C.")
        _serve_on(demo)
    return report


def _mark(rgb: U8) -> tuple[U8, bytes]:
    marked, registration = filigrane.embed(rgb)
    return marked, registration.to_bytes()


def _start(folder: Path, stack: ExitStack) -> tuple[Services, Supervisor, str]:
    port = _port()
    url = url_of(HOST, port)
    data = folder / "data"
    environment = _environment(data, url)
    os.environ.clear()
    os.environ.update(environment)
    settings = load()
    stack.enter_context(lock(data, Running(os.getpid(), "python -m filigrane.demo", url)))
    services = stack.enter_context(Services.open(settings))
    log = stack.enter_context((folder / "demo.log").open("wb"))
    supervisor = stack.enter_context(Supervisor(environment, data / "run", children(HOST, port), log))
    return services, supervisor, url


def _environment(data: Path, url: str) -> dict[str, str]:
    """The demo's own settings, whatever the operator's are."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    own = {"DATA": str(data), "PUBLIC_URL": url, "ALLOW_NETWORKS": "127.0.0.0/8", "SEGMENT_SECONDS": "1"}
    return others | {PREFIX + name: value for name, value in own.items()}


def _port() -> int:
    try:
        return free_port(HOST, 8000)
    except Unavailable:
        return free_port(HOST, 0)


def _wait_until_healthy(demo: Demo) -> None:
    port = int(demo.url.rpartition(":")[2])
    until = time.monotonic() + PATIENCE
    while not healthy(HOST, port):
        demo.supervisor.watch()
        if time.monotonic() >= until:
            raise Unavailable("the API does not get ready")
        time.sleep(_TICK)


def _register(demo: Demo, originals: Sequence[Original]) -> None:
    with demo.services.database.write() as tx:
        account, demo.token = accounts.ensure_local(tx, demo.services.settings.secret, demo.services.clock.now())
    demo.account_id = account.id
    with demo.console.status("registering"):
        for original in originals:
            data = original.file.read_bytes()
            watermark = Registration.from_bytes(original.registration.read_bytes()) if original.registration else None
            path = f"{account.home}/demo/{original.file.name}"
            registrar.register(
                demo.services, account.id, path, registrar.prepare(data, watermark), disk_usage=len(data), watermark=watermark
            )
        outbox.drain(demo.services)
    marked = sum(original.watermarked for original in originals)
    demo.console.print(f"Registered {len(originals)} pictures, {marked} of them watermarked")


def _add_sessions(demo: Demo) -> None:
    now = demo.services.clock.now()
    with demo.services.database.write() as tx:
        for site in demo.served.plan.sites:
            url = demo.served.urls[site] + "/"
            domain = registrable_domain(url)
            session = crawls.create_session(
                tx, demo.account_id, start_urls=[url], domain=domain, now=now, download_delay=DELAY, crawl_delay=60.0
            )
            demo.sessions[site] = session.id
    outbox.drain(demo.services)


# --- while it crawls


def _follow(demo: Demo) -> Report:
    """Shows matches as they come, until all is crawled and matched."""
    wanted = expected(demo.served)
    until = time.monotonic() + PATIENCE
    show.heading(demo.console)
    with _bars(demo.console) as progress:
        bars = {site: progress.add_task(demo.served.plan.titles[site], state="", requests=0) for site in demo.sessions}
        shown: set[int] = set()
        done = False
        while not done and time.monotonic() < until:
            demo.supervisor.watch()
            done = _is_done(demo)
            for match in _matches(demo):
                if match.id not in shown:
                    shown.add(match.id)
                    show.match(demo.console, demo.served, wanted, match)
            _show_progress(demo, progress, bars)
            time.sleep(_TICK)
    return compare(demo.served, _matches(demo))


def _is_done(demo: Demo) -> bool:
    """Every cycle has its batch, every piece's messages are sent, every message is worked off."""
    ids = demo.sessions.values()
    with demo.services.database.read() as tx:
        batches = set(tx.scalars(select(Batch.session_id)))
        unsent = tx.scalar(select(exists().where(Segment.kind == "journal", Segment.sent.is_(None))))
    return batches.issuperset(ids) and not unsent and demo.services.bus.lag(IMAGES, GROUP) == 0


def _matches(demo: Demo) -> Sequence[Match]:
    with demo.services.database.read() as tx:
        return tx.scalars(matches.web_matches(demo.account_id).order_by(Match.id)).all()


def _bars(console: Console) -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description:16}"), TextColumn("{task.fields[state]:8}"))
    return Progress(*columns, TextColumn("{task.fields[requests]} requests"), TimeElapsedColumn(), console=console, transient=True)


def _show_progress(demo: Demo, progress: Progress, bars: dict[str, TaskID]) -> None:
    requests = demo.served.requests
    with demo.services.database.read() as tx:
        states = {row.id: row.state for row in tx.scalars(select(CrawlSession))}
    for site, bar in bars.items():
        state = states[demo.sessions[site]]
        progress.update(bar, state=state, requests=sum(request.host == site for request in requests))
        if state in ("done", "failed"):
            progress.update(bar, total=1, completed=1)


# --- afterwards


def _batches(demo: Demo) -> list[tuple[str, schemas.Batch]]:
    """(title of the site, its batch)"""
    titles = {session_id: demo.served.plan.titles[site] for site, session_id in demo.sessions.items()}
    with demo.services.database.read() as tx:
        rows = tx.scalars(crawls.batches_of(demo.account_id).order_by(Batch.session_id)).all()
        return list(zip([titles[row.session_id] for row in rows], present.batches(tx, rows, demo.links), strict=True))


def _serve_on(demo: Demo) -> None:
    try:
        while True:
            demo.supervisor.watch()
            time.sleep(_TICK)
    except KeyboardInterrupt:
        demo.console.print("Ending.")
