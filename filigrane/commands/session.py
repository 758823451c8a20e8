"""`filigrane session`, and `filigrane crawl`: one session, one cycle, now."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy.orm import Session

from api_shim import present
from api_shim.routes import crawling
from core import outbox, urls
from core.errors import InvalidInput
from core.models import CrawlSession
from core.netguard import Netguard
from core.repo import crawls
from core.settings import Settings
from filigrane.commands import Caller, calling, result, say
from filigrane.commands.cycle import run_cycle
from filigrane.serve import running_on

_OPTIONS: Final = ("interval", "cron", "shared", "crawl_delay", "download_delay", "download_timeout", "max_pages")


def add(given: argparse.Namespace) -> int:
    sites = by_site([*given.urls, *(_read(given.start_urls) if given.start_urls else [])])
    with calling(given) as caller:
        options = _options(given)
        with caller.services.database.write() as tx:
            rows = [_create(tx, caller, start_urls, options) for start_urls in sites]
            shown = [present.session(row, caller.links) for row in rows]
        outbox.drain(caller.services)
        _tell_who_crawls(caller.services.settings)
    result(shown)
    return 0


def _tell_who_crawls(settings: Settings) -> None:
    if settings.distributed:
        say("filigrane: added; the next free `filigrane crawler` will crawl")
    elif running_on(settings.data) is None:
        say("filigrane: added; `filigrane serve` will crawl")


def crawl(given: argparse.Namespace) -> int:
    with calling(given) as caller:
        options = _options(given)
        with caller.services.database.write() as tx:
            session_id = _session_of(tx, caller, given.url, options).id
        return _cycle(caller, session_id)


def list_all(given: argparse.Namespace) -> int:
    with calling(given) as caller, caller.services.database.read() as tx:
        rows = tx.scalars(crawls.sessions_of(caller.account.id).order_by(CrawlSession.id))
        result([present.session(row, caller.links) for row in rows])
    return 0


def show(given: argparse.Namespace) -> int:
    with calling(given) as caller, caller.services.database.read() as tx:
        result(present.session(crawls.get_session(tx, caller.account.id, given.id), caller.links))
    return 0


def pause(given: argparse.Namespace) -> int:
    return _change(given, crawls.pause_session)


def resume(given: argparse.Namespace) -> int:
    return _change(given, crawls.resume_session)


def run(given: argparse.Namespace) -> int:
    with calling(given) as caller:
        return _cycle(caller, given.id)


def delete(given: argparse.Namespace) -> int:
    with calling(given) as caller:
        with caller.services.database.write() as tx:
            crawls.delete_session(tx, caller.account.id, given.id, caller.services.clock.now())
        outbox.drain(caller.services)
    result({"deleted": given.id})
    return 0


def _cycle(caller: Caller, session_id: int) -> int:
    batch, reason = run_cycle(caller, session_id)
    result(batch)
    if reason is not None:
        say(f"filigrane: the crawl failed: {reason}")
    return 0 if reason is None else 1


def by_site(start_urls: Iterable[str]) -> list[list[str]]:
    """The URLs, normalised, in one list for each site, in the order in which they were given.

    Raises InvalidInput: one cannot be crawled, or there is none.
    """
    sites: dict[str, dict[str, None]] = {}
    for url in start_urls:
        normal = urls.normalise(url)
        if normal is None:
            raise InvalidInput(f"not an http or https URL that can be crawled: {url[:200]}", code="invalid_url")
        sites.setdefault(urls.registrable_domain(normal), {})[normal] = None
    if not sites:
        raise InvalidInput("no URL was given", code="invalid_url")
    return [list(site) for site in sites.values()]


def _read(file: Path) -> list[str]:
    """The lines without comments; a `#` inside of a URL begins none."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read {file}: {error}", code="file_unreadable") from error
    return [word for line in lines if (word := line.split(" #", 1)[0].strip()) and not word.startswith("#")]


def _options(given: argparse.Namespace) -> dict[str, Any]:
    """What the flags set, checked as the API checks it. Raises InvalidInput."""
    named = {name: value for name in _OPTIONS if (value := getattr(given, name, None)) is not None}
    if given.no_search:
        named["search"] = False
    try:
        msgspec.convert(named, crawling.Options)
    except msgspec.ValidationError as error:
        raise InvalidInput(str(error), code="invalid_option") from error
    return named


def _create(tx: Session, caller: Caller, start_urls: list[str], options: dict[str, Any]) -> CrawlSession:
    domain = crawling.one_site(start_urls, Netguard(caller.services.settings.allow_networks))
    now = caller.services.clock.now()
    return crawls.create_session(tx, caller.account.id, start_urls=start_urls, domain=domain, now=now, **options)


def _session_of(tx: Session, caller: Caller, url: str, options: dict[str, Any]) -> CrawlSession:
    """The session that begins at this URL alone, so that its next cycle goes on from the last one; a new one where there is none."""
    [[start_url]] = by_site([url])
    for row in tx.scalars(crawls.sessions_of(caller.account.id).order_by(CrawlSession.id)):
        if row.start_urls == [start_url]:
            return crawls.update_session(tx, caller.account.id, row.id, caller.services.clock.now(), **options)
    return _create(tx, caller, [start_url], options)


def _change(given: argparse.Namespace, change: Any) -> int:
    with calling(given) as caller:
        with caller.services.database.write() as tx:
            shown = present.session(change(tx, caller.account.id, given.id, caller.services.clock.now()), caller.links)
        outbox.drain(caller.services)
    result(shown)
    return 0
