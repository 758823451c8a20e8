"""Runs a crawler worker in a thread, and reads the batch that it leaves."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from core.models import Batch, CrawlSession
from core.repo import accounts, crawls
from core.services import Services
from core.urls import registrable_domain
from crawler import worker

DEADLINE = 60.0


def add_session(services: Services, *urls: str, **options: Any) -> CrawlSession:
    """A pending session of the local account, without a delay unless one is given."""
    options = {"download_delay": 0.0, "crawl_delay": 60.0, "download_timeout": 5.0, **options}
    now = services.clock.now()
    with services.database.write() as tx:
        account, _ = accounts.ensure_local(tx, services.settings.secret, now)
        owner = options.pop("account_id", account.id)
        return crawls.create_session(tx, owner, start_urls=list(urls), domain=registrable_domain(urls[0]), now=now, **options)


@contextmanager
def running(services: Services, name: str = "local") -> Iterator[None]:
    """A worker at work; drained at the end."""
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(services, stop), kwargs={"name": name})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(DEADLINE)
        assert not thread.is_alive()


def session_of(services: Services, session_id: int) -> CrawlSession:
    with services.database.read() as tx:
        return crawls.get_session(tx, None, session_id)


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def wait_for(services: Services, *sessions: CrawlSession) -> None:
    """Until no cycle of them is pending or running."""
    wait_until(lambda: all(session_of(services, session.id).state not in ("pending", "running") for session in sessions))


def crawl(services: Services, *urls: str, **options: Any) -> CrawlSession:
    """One cycle; returns the session as it ended."""
    session = add_session(services, *urls, **options)
    with running(services):
        wait_for(services, session)
    return session_of(services, session.id)


def batches(services: Services, session: CrawlSession) -> list[Batch]:
    with services.database.read() as tx:
        return list(tx.scalars(crawls.batches_of(session.account_id, session.id).order_by(Batch.crawl_cycle)))


def artifact(services: Services, batch: Batch, name: str) -> bytes:
    (found,) = [row for row in batch.artifacts if row.name == name]
    return services.store.get(found.key)


def rows(services: Services, batch: Batch, name: str) -> list[dict[str, str]]:
    """A log, row by row; as many as its count."""
    text = gzip.decompress(artifact(services, batch, name)).decode()
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    (row,) = [row for row in batch.artifacts if row.name == name]
    assert len(found) == row.count
    return found


def pictures(services: Services, batch: Batch) -> dict[str, bytes]:
    """images.tar: member name -> bytes; each name once."""
    with tarfile.open(fileobj=io.BytesIO(artifact(services, batch, "images.tar")), mode="r:") as tar:
        members = tar.getmembers()
        found = {member.name: reader.read() for member in members if (reader := tar.extractfile(member))}
    assert len(found) == len(members)
    return found
