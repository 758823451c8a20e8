"""`filigrane serve` as processes, two sessions at once, and kill -9 of each kind of process: every copy has exactly one match per page."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from core import outbox
from core.events import IMAGES
from core.repo import accounts, crawls, matches
from core.services import Services
from core.settings import Settings
from core.shards import GROUP
from core.urls import registrable_domain
from filigrane.demo.report import Sighting, expected, sighting, smallest_gap
from filigrane.demo.site import Served, build, serve, watermark
from matcher import registrar
from matcher.watermark.registration import Registration
from tests.crawler.crawling import batches, pictures, rows, session_of, wait_until

pytestmark = [pytest.mark.story, pytest.mark.timeout(400)]
ROLES = ("crawler", "matcher", "scheduler", "api")
DELAY = 0.05
SEED = 20261123


def start_serve(data: Path) -> subprocess.Popen[bytes]:
    environment = dict(os.environ, FILIGRANE_ALLOW_NETWORKS="127.0.0.0/8", FILIGRANE_SEGMENT_SECONDS="0.5")
    command = [sys.executable, "-m", "filigrane.cli", "serve", "--data", str(data), "--port", "0"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["ready"] is True
    return process


def add_sessions(services: Services, account_id: int, served: Served, sites: list[str], delay: float = DELAY) -> list[int]:
    now, made = services.clock.now(), []
    with services.database.write() as tx:
        for site in sites:
            url = f"{served.urls[site]}/"
            options = {"download_delay": delay, "crawl_delay": 120.0}
            made.append(crawls.create_session(tx, account_id, start_urls=[url], domain=registrable_domain(url), now=now, **options).id)
    outbox.drain(services)
    return made


def register_all(services: Services, served: Served) -> int:
    with services.database.write() as tx:
        account, _ = accounts.ensure_local(tx, services.settings.secret, services.clock.now())
    for original in served.plan.originals:
        data = original.file.read_bytes()
        mark = Registration.from_bytes(original.registration.read_bytes()) if original.registration else None
        path = f"{account.home}/{original.file.name}"
        registrar.register(services, account.id, path, registrar.prepare(data), disk_usage=len(data), watermark=mark)
    outbox.drain(services)
    return account.id


def kill(data: Path, role: str) -> None:
    """kill -9 of a role's process, as `serve` notes it; waits for the next one."""
    wait_until(lambda: noted_pid(data, role) is not None)
    pid = noted_pid(data, role)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: noted_pid(data, role) not in (None, pid))


def noted_pid(data: Path, role: str) -> int | None:
    try:
        return int((data / "run" / f"{role}.pid").read_text())
    except FileNotFoundError:  # it has died, and the next one is not there yet
        return None


def test_a_kill_of_each_kind_changes_nothing(tmp_path: Path) -> None:
    moments = random.Random(SEED)
    data = tmp_path / "data"
    plan = build(tmp_path / "web", mark=watermark)
    with serve(plan) as served, Services.open(Settings(data=data)) as services:
        account_id = register_all(services, served)
        process = start_serve(data)
        sites = list(plan.sites[:2])
        sessions = add_sessions(services, account_id, served, sites)
        for role in moments.sample(ROLES, len(ROLES)):
            target = len(served.requests) + moments.randint(2, 10)
            wait_until(lambda target=target: len(served.requests) >= target or all_done(services, sessions))  # type: ignore[misc]
            kill(data, role)
        until = time.monotonic() + 300
        while not (all_done(services, sessions) and not services.bus.lag(IMAGES, GROUP) and all_sent(services)):
            assert time.monotonic() < until, "the story does not end"
            time.sleep(0.2)
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert_every_copy_once(services, served, account_id, sites)
        assert_counts(services, sessions)
    assert smallest_gap(served.requests) >= DELAY - 0.005


def all_done(services: Services, sessions: list[int]) -> bool:
    return all(session_of(services, session).state == "done" for session in sessions)


def all_sent(services: Services) -> bool:
    with services.database.read() as tx:
        return not crawls.unsent(tx, services.clock.now(), 1)


def assert_every_copy_once(services: Services, served: Served, account_id: int, sites: list[str]) -> None:
    found, wanted = copies(services, served, account_id, sites)
    assert found == wanted
    forbidden = {served.url(place) for place in served.plan.forbidden}
    assert not forbidden & {f"{served.urls[request.host]}{request.path}" for request in served.requests}


def copies(services: Services, served: Served, account_id: int, sites: list[str]) -> tuple[Counter[Sighting], Counter[Sighting]]:
    """What was found, and what had to be: each copy on each of its pages once."""
    crawled = tuple(f"{served.urls[site]}/" for site in sites)
    wanted = Counter(each for each in expected(served) if each.page.startswith(crawled))
    with services.database.read() as tx:
        found = Counter(sighting(match) for match in tx.scalars(matches.web_matches(account_id)))
    return found, wanted


def assert_counts(services: Services, sessions: list[int]) -> None:
    """What contract.md says of artifacts: one batch, rows as counted, members as the log has different pictures."""
    for session_id in sessions:
        (batch,) = batches(services, session_of(services, session_id))
        images = rows(services, batch, "images.log")
        assert len({(row["url"], row["page_url"]) for row in images}) == len(images)
        assert len(pictures(services, batch)) == len({row["sha256"] for row in images if row["offset"]})
        pages = [row for row in rows(services, batch, "pages.log") if not row["url"].endswith("/robots.txt")]
        assert len({row["url"] for row in pages}) == len(pages)
