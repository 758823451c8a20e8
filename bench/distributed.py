"""Trees of static pages crawled at once by two workers over Kafka, S3 and PostgreSQL, each worker killed once; beside wget and one machine.

    python -m bench.distributed --site FOLDER --site FOLDER

Each folder is a site on a loopback address of its own. What was asked for is compared with `wget -r -l inf -p` and with `filigrane crawl`
on the embedded parts; each artifact is fetched by plain boto3 and by `filigrane batch download`, and read by gzip, tar, warcio, fastwarc.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import boto3

from bench.site import StaticSite
from core.events import IMAGES, ImageFound, decode
from core.models import Batch
from core.repo import accounts, crawls
from core.services import Services
from core.settings import Settings
from core.urls import registrable_domain
from tests.story.cluster import Deployment, deployment

OUT: Final = Path("bench-out")
SEED: Final = 4
CRAWLERS: Final = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--site", type=Path, action="append", required=True, help="folder to serve; give two or more")
    parser.add_argument("--start", default="index.html")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sites = [Site(work, number, site, options.start) for number, site in enumerate(options.site)]
        rows = run(work, sites)
    report(rows)


class Site:
    """A folder on an address of its own, and what was asked of it since."""

    def __init__(self, work: Path, number: int, folder: Path, start: str) -> None:
        self.name = folder.name
        self._asked = work / f"asked-{number}"
        self._asked.touch()
        self._static = StaticSite(folder, host=f"127.0.0.{number + 2}", asked=self._asked)
        self._start = start

    def __enter__(self) -> Site:
        self._static.__enter__()
        self.start = f"{self._static.url}/{self._start}"
        return self

    def __exit__(self, *error: Any) -> None:
        self._static.__exit__(*error)

    def asked(self) -> list[str]:
        return [line.split(" ", 1)[1] for line in self._asked.read_text().splitlines()]

    def forget(self) -> None:
        self._asked.write_text("")


def run(work: Path, sites: Sequence[Site]) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        for site in sites:
            stack.enter_context(site)
        made = stack.enter_context(deployment(work))
        services = stack.enter_context(Services.open(made.settings))
        started = time.monotonic()
        sessions, refetched = crawl(made, services, sites)
        seconds = time.monotonic() - started
        facts = [checked(work, made, services, site, session) for site, session in zip(sites, sessions, strict=True)]
        asked = [Counter(site.asked()) for site in sites]
        announced = pictures_announced(services)
        for row, site, count, session in zip(facts, sites, asked, sessions, strict=True):
            row |= {"site": site.name, "requests": sum(count.values()), "addresses": len(count), "refetched": refetched[site.name]}
            row |= {"seconds, both": round(seconds), "pictures announced": announced[session]}
            row |= compared(site, set(count), "wget", wget)
            row |= compared(site, set(count), "one machine", one_machine)
    return facts


def crawl(made: Deployment, services: Services, sites: Sequence[Site]) -> tuple[list[int], dict[str, int]]:
    """Two workers, a kill of each in the middle; returns the sessions' ids and how many answers were asked for twice."""
    moments = random.Random(SEED)
    sessions = [add(services, site) for site in sites]
    for _ in range(CRAWLERS):
        made.start("crawler")
    made.start("scheduler")
    for machine in made.of("crawler"):
        target = sum(len(site.asked()) for site in sites) + moments.randint(300, 1200)
        until(lambda target=target: sum(len(site.asked()) for site in sites) >= target)  # type: ignore[misc]
        machine.kill()
        machine.start()
    until(lambda: all(state(services, session) == "done" for session in sessions))
    until(lambda: sent(services))
    again = {site.name: sum(count - 1 for path, count in Counter(site.asked()).items() if path != "/robots.txt") for site in sites}
    return sessions, again


def add(services: Services, site: Site) -> int:
    now = services.clock.now()
    with services.database.write() as tx:
        account, _ = accounts.ensure_local(tx, services.settings.secret, now)
        options = {"download_delay": 0.0, "crawl_delay": 3600.0}
        made = crawls.create_session(tx, account.id, start_urls=[site.start], domain=registrable_domain(site.start), now=now, **options)
        return made.id


def state(services: Services, session: int) -> str:
    with services.database.read() as tx:
        return crawls.get_session(tx, None, session).state


def sent(services: Services) -> bool:
    with services.database.read() as tx:
        return not crawls.unsent(tx, services.clock.now(), 1)


def until(condition: Callable[[], bool], patience: float = 1800.0) -> None:
    limit = time.monotonic() + patience
    while not condition():
        if time.monotonic() > limit:
            raise SystemExit("it did not end in time")
        time.sleep(0.2)


def pictures_announced(services: Services) -> Counter[int]:
    """Session -> different (picture, page) that are on the bus."""
    follower = services.bus.follow(IMAGES, "earliest")
    seen: set[tuple[int, str, str]] = set()
    while messages := follower.poll(3.0, 1000):
        for message in messages:
            event = decode(message.value)
            assert isinstance(event, ImageFound)
            seen |= {(event.session, event.url, sighting.page_url) for sighting in event.sightings}
    follower.close()
    return Counter(session for session, _, _ in seen)


# --- artifacts


def checked(work: Path, made: Deployment, services: Services, site: Site, session: int) -> dict[str, Any]:
    """Fetches the batch by two ways, reads it with the tools that people have, and counts what is in it."""
    with services.database.read() as tx:
        row = crawls.get_session(tx, None, session)
        (batch,) = tx.scalars(crawls.batches_of(row.account_id, session))
    by_boto = with_boto3(work / f"boto-{session}", services.settings, made, batch)
    by_command = work / f"command-{session}"
    command = [sys.executable, "-m", "filigrane.cli", "batch", "download", str(batch.id), "-o", str(by_command)]
    subprocess.run(command, env={**os.environ, **made.environment}, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    same = {path.name: digest(path) for path in by_boto.iterdir()} == {path.name: digest(path) for path in by_command.iterdir()}
    logs = [path for path in by_boto.iterdir() if path.name.endswith(".csv.gz")]
    for path in logs:
        with gzip.open(path) as file:
            while file.read(1 << 20):
                pass
    with tarfile.open(by_boto / "images.tar") as tar:
        members = len(tar.getnames())
    warc = str(by_boto / "pages.warc.gz")
    tools = [["gzip", "-t", warc], ["warcio", "check", warc], ["fastwarc", "check", warc]]
    verdicts = {" ".join(tool[:2]): subprocess.run(tool, capture_output=True, env=with_venv(), check=False).returncode for tool in tools}
    rows = {artifact.name: artifact.count for artifact in batch.artifacts}
    return {"rows": rows, "images.tar members": members, "boto3 = batch download": same, "readers": verdicts}


def with_venv() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def with_boto3(folder: Path, settings: Settings, made: Deployment, batch: Batch) -> Path:
    bucket, _, prefix = settings.store_url.removeprefix("s3://").partition("/")
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=made.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=made.environment["AWS_SECRET_ACCESS_KEY"],
    )
    folder.mkdir()
    for artifact in batch.artifacts:
        key = f"{prefix.strip('/')}/{artifact.key}".lstrip("/")
        client.download_file(bucket, key, str(folder / artifact.key.rsplit("/", 1)[1]))
    return folder


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the others


def compared(site: Site, ours: set[str], name: str, other: Callable[[Site], None]) -> dict[str, Any]:
    """What the other one asked for, as the site's log has it."""
    site.forget()
    other(site)
    theirs = set(site.asked())
    return {f"only {name}": endings(theirs - ours), f"not {name}": endings(ours - theirs)}


def wget(site: Site) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["wget", "-q", "-r", "-l", "inf", "-p", "-P", folder, site.start], check=False)


def one_machine(site: Site) -> None:
    with tempfile.TemporaryDirectory() as data:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FILIGRANE_")}
        environment |= {"FILIGRANE_ALLOW_NETWORKS": "127.0.0.0/8", "FILIGRANE_DATA": data}
        command = [
            sys.executable,
            "-m",
            "filigrane.cli",
            "crawl",
            site.start,
            "--download-delay",
            "0",
            "--crawl-delay",
            "3600",
            "--no-search",
        ]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def endings(paths: Iterable[str]) -> dict[str, int]:
    """How many of each kind, by the ending of the name."""
    return dict(Counter(Path(path.partition("?")[0]).suffix or path for path in paths))


def report(rows: Sequence[dict[str, Any]]) -> None:
    """JSON and a Markdown table, on paper and on the screen."""
    OUT.mkdir(exist_ok=True)
    (OUT / "distributed.json").write_text(json.dumps(rows, indent=1) + "\n")
    names = [row["site"] for row in rows]
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {key} | {' | '.join(_cell(row[key]) for row in rows)} |" for key in rows[0] if key != "site"]
    (OUT / "distributed.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    return str(value)


if __name__ == "__main__":
    main()
