"""From rows to the API's objects. Everything that a page needs is read at once, not row by row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec
from msgspec import UNSET
from sqlalchemy.orm import Session

from api_shim import schemas
from api_shim.links import Links
from api_shim.pagination import Page
from api_shim.schemas import number, stamp
from core.events import SearchAnswered, SearchHit, WebHit
from core.models import Batch, CrawlSession, Match, Media, Picture
from core.repo import crawled, media, pictures

_KINDS = ("images", "videos", "documents", "pages", "skipped")


class Presenter:
    """Shows media and matches; lives as long as one transaction."""

    def __init__(self, tx: Session, links: Links) -> None:
        self._tx = tx
        self._links = links
        self._statics: dict[int, str] = {}
        self._pictures: dict[int, Picture] = {}

    def media(self, nodes: Sequence[Media]) -> list[schemas.Media]:
        registrations = [node.registration for node in nodes if node.registration is not None]
        self._load(registration.picture_id for registration in registrations)
        self._show(registration.preview_id for registration in registrations)
        return [self._media(node) for node in nodes]

    def folder(self, node: Media, page: Page[Media]) -> schemas.Folder:
        shown = self._media(node)
        return schemas.Folder(shown.url, shown.path, shown.created, "folder", page.count, page.next, page.previous, self.media(page.items))

    def matches(self, rows: Sequence[Match]) -> list[schemas.WebMatch]:
        self._load(row.picture_id for row in rows)
        return [self._match(row) for row in rows]

    def found(self, account_id: int, answer: SearchAnswered, created: datetime) -> list[schemas.UserMatch]:
        """What a search found: registered pictures first, then crawled ones, once for each page."""
        return self._hits(account_id, answer.hits, created) + self._web_hits(account_id, answer.web, created)

    def _hits(self, account_id: int, hits: Sequence[SearchHit], created: datetime) -> list[schemas.UserMatch]:
        """Hits whose media were deleted meanwhile are left out."""
        self._load(hit.picture for hit in hits)
        detected = {hit.picture for hit in hits if hit.key_id}
        shown = []
        for hit in hits:
            picture = self._pictures.get(hit.picture)
            nodes = media.linked(self._tx, hit.picture, hit.key_id, key_detected=hit.picture in detected)
            if picture is not None and picture.account_id == account_id and nodes:
                shown.append(self._hit(hit, nodes, stamp(created)))
        return shown

    def _hit(self, hit: SearchHit, nodes: Sequence[Media], created: str) -> schemas.UserMatch:
        return schemas.UserMatch(
            created=created,
            type="user",
            watermarked=bool(hit.key_id),
            paths=self.media(nodes),
            image=self._image(self._pictures[hit.picture]),
            p_value=hit.p_value,
            payload=hit.payload,
            verdict=hit.verdict,
            score=hit.score,
            transform=list(hit.transform) if hit.transform is not None else None,
            overlap=hit.overlap,
            mirrored=hit.mirrored,
            why=msgspec.convert(hit.why, schemas.Why, from_attributes=True) if hit.why is not None else UNSET,
        )

    def _web_hits(self, account_id: int, hits: Sequence[WebHit], created: datetime) -> list[schemas.UserMatch]:
        """Watermark and media are those of the account's web matches with the same bytes: they were all looked for when it was crawled."""
        known: dict[str, list[Match]] = {}
        for match in crawled.known_matches(self._tx, account_id, {hit.sha256 for hit in hits if hit.verdict is not None}):
            known.setdefault(match.sha256, []).append(match)
        return [self._web_hit(hit, page, known.get(hit.sha256, ()), stamp(created)) for hit in hits for page in hit.pages]

    def _web_hit(self, hit: WebHit, page_url: str, known: Sequence[Match], created: str) -> schemas.UserMatch:
        marked = min((row for row in known if row.watermarked), key=lambda row: row.p_value or 0.0, default=None)
        nodes = {node.id: node for row in known for node in row.media}
        return schemas.UserMatch(
            created=created,
            type="user",
            watermarked=marked is not None,
            paths=self.media([nodes[node_id] for node_id in sorted(nodes)]),
            image=web_image(hit, page_url),
            p_value=marked.p_value if marked is not None else None,
            payload=marked.payload if marked is not None else None,
            verdict=hit.verdict,
            score=hit.score,
            transform=list(hit.transform) if hit.transform is not None else None,
            overlap=hit.overlap,
            mirrored=hit.mirrored,
        )

    def _load(self, picture_ids: Iterable[int]) -> None:
        missing = sorted(set(picture_ids) - self._pictures.keys())
        rows = pictures.by_ids(self._tx, missing)
        self._pictures.update((picture.id, picture) for picture in rows)
        self._show(static_id for picture in rows for static_id in (picture.preview_id, picture.thumbnail_id))

    def _show(self, static_ids: Iterable[int | None]) -> None:
        missing = sorted({static_id for static_id in static_ids if static_id is not None} - self._statics.keys())
        self._statics.update((static.id, self._links.static(static)) for static in pictures.statics(self._tx, missing))

    def _media(self, node: Media) -> schemas.Media:
        url = self._links.media(node.path)
        shown = schemas.Media(url, node.path, stamp(node.created), node.type)
        if node.registration is not None:
            picture = self._pictures[node.registration.picture_id]
            shown.image = self._statics[node.registration.preview_id or picture.preview_id]
            shown.thumbnail = self._statics[picture.thumbnail_id]
            shown.disk_usage = node.disk_usage
            shown.exclusive = UNSET if node.exclusive is None else node.exclusive
            shown.web_matches, shown.press_matches, shown.user_matches = (f"{url}/matches/{kind}/" for kind in ("web", "press", "user"))
        return shown

    def _image(self, picture: Picture) -> schemas.Image:
        return schemas.Image(
            url=self._statics[picture.preview_id],
            width=picture.width,
            height=picture.height,
            credit=picture.credit,
            thumbnail=self._statics[picture.thumbnail_id],
        )

    def _match(self, row: Match) -> schemas.WebMatch:
        return schemas.WebMatch(
            url=self._links.match(row.id),
            created=stamp(row.created),
            type=row.type,
            watermarked=row.watermarked,
            exclusive=UNSET if row.exclusive is None else row.exclusive,
            query_url=row.query_url,
            query_page_url=row.page_url,
            paths=self.media(sorted(row.media, key=lambda node: node.id)),
            image=self._image(self._pictures[row.picture_id]),
            p_value=row.p_value,
            payload=row.payload,
            verdict=row.verdict,
            score=row.score,
            transform=row.transform,
            overlap=row.overlap,
            mirrored=row.mirrored,
        )


def web_image(hit: WebHit, page_url: str) -> schemas.WebImage:
    return schemas.WebImage(
        url=hit.url,
        width=hit.width,
        height=hit.height,
        credit=hit.credit,
        thumbnail=None,
        crawl_date=stamp(hit.first_seen),
        page_url=page_url,
        md5=hit.md5,
        last_modified_date=stamp(hit.last_modified) if hit.last_modified is not None else UNSET,
        page_count=hit.page_count,
    )


def session(row: CrawlSession, links: Links) -> schemas.Session:
    return schemas.Session(
        url=links.session(row.id),
        id=row.id,
        ctime=stamp(row.ctime),
        mtime=stamp(row.mtime),
        stime=stamp(row.stime) if row.stime is not None else None,
        state=row.state,
        cycle_count=row.cycle_count,
        crawl_delay=number(row.crawl_delay),
        search=row.search,
        download_delay=number(row.download_delay),
        download_timeout=number(row.download_timeout),
        start_urls=row.start_urls,
        batches=links.batches(row.id),
        robots=row.robots,
        shared=row.shared,
        interval=row.interval,
        cron=row.cron,
        max_depth=row.max_depth,
        max_pages=row.max_pages,
        user_agent=row.user_agent,
        reason=row.reason,
    )


def batches(tx: Session, rows: Sequence[Batch], links: Links) -> list[schemas.Batch]:
    static_ids = [artifact.static_id for row in rows for artifact in row.artifacts]
    urls = {static.id: links.static(static) for static in pictures.statics(tx, static_ids)}
    return [_batch(row, urls, links) for row in rows]


def _batch(row: Batch, urls: dict[int, str], links: Links) -> schemas.Batch:
    found = {kind: schemas.Found(0) for kind in _KINDS}
    for artifact in row.artifacts:
        kind, _, what = artifact.name.partition(".")
        if what == "log":
            found[kind].count = artifact.count
        if artifact.count and artifact.static_id in urls:
            setattr(found[kind], what, urls[artifact.static_id])
    return schemas.Batch(
        url=links.batch(row.id),
        id=row.id,
        ctime=stamp(row.ctime),
        session=links.session(row.session_id),
        crawl_cycle=row.crawl_cycle,
        images=found["images"],
        videos=found["videos"],
        documents=found["documents"],
        pages=found["pages"],
        skipped=found["skipped"],
    )
