"""Crawling sessions and what their crawls left."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.orm import Session

from api_shim import bodies, present, schemas
from api_shim.endpoint import Answer, Call
from api_shim.errors import InvalidFields
from api_shim.filters import within
from api_shim.pagination import Order
from core import urls
from core.errors import Forbidden, NotBuilt
from core.models import Batch, CrawlSession
from core.netguard import Netguard
from core.repo import crawls

SESSIONS: Final = Order("sessions", (CrawlSession.id,), descending=True)
BATCHES: Final = Order("batches", (Batch.id,), descending=True)

_MAX_START_URLS: Final = 1000
_Seconds = Annotated[float, Meta(gt=0, le=30 * 86400)]
_Delay = Annotated[float, Meta(ge=0, le=3600)]
_Timeout = Annotated[float, Meta(gt=0, le=600)]
_Interval = Annotated[float, Meta(ge=1, le=366 * 86400)]
_Url = Annotated[str, Meta(min_length=1, max_length=2 * urls.MAX_LENGTH)]


class Options(msgspec.Struct, kw_only=True):
    """What the owner of a session may set."""

    start_urls: Annotated[list[_Url], Meta(min_length=1, max_length=_MAX_START_URLS)] | UnsetType = UNSET
    crawl_delay: _Seconds | UnsetType = UNSET
    download_delay: _Delay | UnsetType = UNSET
    download_timeout: _Timeout | UnsetType = UNSET
    search: bool | UnsetType = UNSET
    robots: bool | UnsetType = UNSET
    shared: bool | UnsetType = UNSET
    interval: _Interval | UnsetType | None = UNSET
    cron: Annotated[str, Meta(max_length=100)] | UnsetType | None = UNSET
    max_depth: Annotated[int, Meta(ge=0, le=1000000)] | UnsetType | None = UNSET
    max_pages: Annotated[int, Meta(ge=1, le=1000000000)] | UnsetType | None = UNSET
    user_agent: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[ -~]+$")] | UnsetType | None = UNSET
    state: Literal["paused", "pending"] | UnsetType = UNSET


class NewSession(Options, kw_only=True):
    url: _Url | UnsetType = UNSET


def list_sessions(call: Call) -> Answer:
    query = call.query()
    created = query.dates("ctime")
    query.check()
    rows = within(crawls.sessions_of(call.account.id), CrawlSession.ctime, created)
    with call.database.read() as tx:
        page = call.paginator("/crawling/sessions/").page(tx, rows, SESSIONS)
        return Answer(schemas.Sessions(page.count, page.next, page.previous, [present.session(row, call.links) for row in page.items]))


def create_session(call: Call) -> Answer:
    given = call.fields()
    refuse_unbuilt(given.values)
    wanted = bodies.parse(NewSession, given)
    start_urls = _start_urls(wanted)
    domain = one_site(start_urls, call.state.netguard)
    options = _options(call, wanted)
    options.pop("start_urls", None)
    now = call.clock.now()

    def create(tx: Session) -> schemas.Session:
        row = crawls.create_session(tx, call.account.id, start_urls=start_urls, domain=domain, now=now, **options)
        _check_schedule(row)
        if wanted.state == "paused":
            row = crawls.pause_session(tx, call.account.id, row.id, now)
        return present.session(row, call.links)

    shown = call.database.transact(create)
    call.state.announcer.announce()
    return Answer(shown, 201, {"Location": shown.url})


def show_session(call: Call) -> Answer:
    with call.database.read() as tx:
        return Answer(present.session(crawls.get_session(tx, call.account.id, call.number("session_id")), call.links))


def change_session(call: Call) -> Answer:
    """Changes what the body names; `state` pauses it, or lets it run (again)."""
    given = call.fields()
    refuse_unbuilt(given.values)
    wanted = bodies.parse(Options, given)
    session_id = call.number("session_id")
    options = _options(call, wanted)
    now = call.clock.now()

    def change(tx: Session) -> schemas.Session:
        row = crawls.get_session(tx, call.account.id, session_id)
        if "start_urls" in options and one_site(options["start_urls"], call.state.netguard) != row.domain:
            raise InvalidFields({"start_urls": f"a session stays on its site, {row.domain}"})
        row = crawls.update_session(tx, call.account.id, session_id, now, **options)
        _check_schedule(row)
        if wanted.state == "paused":
            row = crawls.pause_session(tx, call.account.id, session_id, now)
        elif wanted.state == "pending" and row.state != "pending":
            row = crawls.run_session(tx, call.account.id, session_id, now)
        return present.session(row, call.links)

    shown = call.database.transact(change)
    call.state.announcer.announce()
    return Answer(shown)


def delete_session(call: Call) -> Answer:
    session_id = call.number("session_id")
    call.database.transact(lambda tx: crawls.delete_session(tx, call.account.id, session_id, call.clock.now()))
    call.state.announcer.announce()
    return Answer(status=204)


def list_batches(call: Call) -> Answer:
    """All of the account, or those of one session."""
    session_id = call.number("session_id") if "session_id" in call.request.path_params else None
    query = call.query()
    created = query.dates("ctime")
    query.check()
    path = "/crawling/batches/" if session_id is None else f"/crawling/sessions/{session_id}/batches/"
    with call.database.read() as tx:
        if session_id is not None:
            crawls.get_session(tx, call.account.id, session_id)
        page = call.paginator(path).page(tx, within(crawls.batches_of(call.account.id, session_id), Batch.ctime, created), BATCHES)
        return Answer(schemas.Batches(page.count, page.next, page.previous, present.batches(tx, page.items, call.links)))


def show_batch(call: Call) -> Answer:
    with call.database.read() as tx:
        batch = crawls.get_batch(tx, call.account.id, call.number("batch_id"))
        return Answer(present.batches(tx, [batch], call.links)[0])


def one_site(start_urls: list[str], netguard: Netguard) -> str:
    """The site that all the URLs are on (a registrable domain; host:port for addresses).

    Raises:
        InvalidFields: a URL cannot be crawled, or they are on different sites.
        AddressRefused: an address that may not be reached. Names are looked up when they are crawled.
    """
    sites: set[str] = set()
    for url in start_urls:
        normal = urls.normalise(url)
        if normal is None:
            raise InvalidFields({"url": f"not an http or https URL that can be crawled: {url[:200]}"})
        host, _ = urls.host_port(normal)
        if urls.is_address(host):
            netguard.check(ipaddress.ip_address(host))
        sites.add(urls.registrable_domain(normal))
    if len(sites) > 1:
        raise InvalidFields({"start_urls": f"one session, one site; these are on {', '.join(sorted(sites))}"})
    return sites.pop()


def refuse_unbuilt(values: dict[str, Any]) -> None:
    """Raises NotBuilt for fields that are documented for later."""
    if values.get("window"):
        raise NotBuilt("window (crawl only in these hours) is not built yet; use cron to start at an hour")
    if values.get("render") not in (None, False, "false", "0", 0):
        raise NotBuilt("render (pages through a headless browser) is not built yet")


def _start_urls(wanted: NewSession) -> list[str]:
    """`url` first, then the others."""
    named = [wanted.url] if isinstance(wanted.url, str) else []
    others = wanted.start_urls if isinstance(wanted.start_urls, list) else []
    start_urls = list(dict.fromkeys(url.strip() for url in [*named, *others]))
    if not start_urls:
        raise InvalidFields({"url": "is required"})
    return start_urls


def _options(call: Call, wanted: Options) -> dict[str, Any]:
    options = {name: value for name in crawls.OPTIONS if (value := getattr(wanted, name)) is not UNSET}
    if options.get("shared") and not call.account.operator:
        raise Forbidden("only operators share a session with every account", code="operators_only")
    return options


def _check_schedule(row: CrawlSession) -> None:
    if row.interval is not None and row.cron:
        raise InvalidFields({"cron": "interval or cron, not both; set the other to null"})
