"""The API's objects, as they stand in JSON. Points in time are UTC with six decimals and a Z."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from msgspec import UNSET, UnsetType


class Media(msgspec.Struct, omit_defaults=True):
    url: str
    path: str
    created: str
    type: str
    image: str | UnsetType = UNSET
    thumbnail: str | UnsetType = UNSET
    disk_usage: int | UnsetType = UNSET
    exclusive: bool | UnsetType = UNSET
    web_matches: str | UnsetType = UNSET
    press_matches: str | UnsetType = UNSET
    user_matches: str | UnsetType = UNSET


class Folder(msgspec.Struct):
    """The folder that was asked for, with a page of what is in it."""

    url: str
    path: str
    created: str
    type: str
    count: int
    next: str | None
    previous: str | None
    children: list[Media]


class Image(msgspec.Struct):
    """A registered picture."""

    url: str
    width: int
    height: int
    credit: str | None
    thumbnail: str | None
    type: str = "registered"


class WebImage(Image, kw_only=True):
    """A crawled picture on one page; `page_count`: on how many it is known to be."""

    type: str = "web"
    crawl_date: str
    page_url: str
    md5: str
    last_modified_date: str | UnsetType = UNSET
    page_count: int


class Why(msgspec.Struct):
    """What a verdict rests on: pairs of features that look alike; those of them that the transform explains; how much agrees once one
    picture is laid over the other (0..1), and how well (median correlation of its blocks). No pairs where the pictures were compared as a
    whole."""

    correspondences: int
    inliers: int
    likeness: float
    ncc: float


class UserMatch(msgspec.Struct, kw_only=True):
    """A registered or a crawled picture in what was searched with, and why it is a match.

    `transform`: 9 numbers, row by row, registered (or crawled) -> found, in pixels.
    """

    created: str
    type: str
    watermarked: bool
    paths: list[Media]
    image: Image
    p_value: float | None
    payload: int | None
    verdict: str | None
    score: float | None
    transform: list[float] | None
    overlap: float | None
    mirrored: bool | None
    why: Why | UnsetType = UNSET


class WebMatch(UserMatch, kw_only=True):
    """A registered picture on a page of the web; `query_url` is the picture that was found there."""

    url: str
    exclusive: bool | UnsetType = UNSET
    query_url: str
    query_page_url: str


class Matches(msgspec.Struct):
    count: int
    next: str | None
    previous: str | None
    results: list[WebMatch]


class SearchDone(msgspec.Struct):
    """A synchronous search: never recorded, so without an address."""

    status: str
    matches: list[UserMatch]
    candidates: int | UnsetType = UNSET


def search_done(matches: list[UserMatch], candidates: int | None) -> SearchDone:
    """`candidates`: how many registered pictures were looked at; left out where none were asked for."""
    return SearchDone("complete", matches, UNSET if candidates is None else candidates)


class Session(msgspec.Struct, kw_only=True):
    url: str
    id: int
    ctime: str
    mtime: str
    stime: str | None
    state: str
    cycle_count: int
    crawl_delay: int | float
    search: bool
    download_delay: int | float
    download_timeout: int | float
    start_urls: list[str]
    batches: str
    robots: bool
    shared: bool
    interval: float | None
    cron: str | None
    max_depth: int | None
    max_pages: int | None
    user_agent: str | None
    reason: str | None


class Sessions(msgspec.Struct):
    count: int
    next: str | None
    previous: str | None
    results: list[Session]


class Found(msgspec.Struct):
    """What a batch has of one kind: how many, and where to download it."""

    count: int
    log: str | UnsetType = UNSET
    tar: str | UnsetType = UNSET
    warc: str | UnsetType = UNSET


class Batch(msgspec.Struct):
    url: str
    id: int
    ctime: str
    session: str
    crawl_cycle: int
    images: Found
    videos: Found
    documents: Found
    pages: Found
    skipped: Found


class Batches(msgspec.Struct):
    count: int
    next: str | None
    previous: str | None
    results: list[Batch]


class Account(msgspec.Struct):
    username: str
    email: str
    full_name: str
    service_plan: str
    incidents: str | None
    image_count: int
    image_quota: int | None
    disk_usage: int
    disk_quota: int | None
    home: str
    matches_not_listed: int
    """Pages with copies that are counted only, because 1,000 of their site are listed."""


class Token(msgspec.Struct):
    token: str


class Uploaded(msgspec.Struct):
    url: str
    expiry: str
    """UTC, to the second."""


class Watermarked(msgspec.Struct):
    """Where the files are, until `expiry`."""

    original: str
    watermarked: str
    registration: str
    expiry: str


class Detected(msgspec.Struct):
    """`transform`: 9 numbers, row by row, registered -> query, in pixels; none where the query does not show the picture."""

    marked: bool
    p_value: float
    payload: int | None
    transform: list[float] | None


class PublicKey(msgspec.Struct):
    key: str
    """PEM."""


class Moved(msgspec.Struct):
    path: str


class Health(msgspec.Struct):
    status: str


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def number(value: float) -> int | float:
    """Whole seconds as the API shows them: 300, not 300.0."""
    return int(value) if float(value).is_integer() else value
