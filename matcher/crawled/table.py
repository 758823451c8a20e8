"""What is known of a crawled picture besides its features: enough to build the message again that told of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from core.events import ImageFound, Sighting, StoredAt
from core.repo.matches import ROWS_PER_SITE

PAGES: Final = ROWS_PER_SITE
"""Of one picture in a file; more than these are not listed as matches either."""


class CrawledPicture(msgspec.Struct, frozen=True, array_like=True):
    """A picture as the crawls of one session found it. Digests are bytes; `pages`: (page URL, alt)."""

    sha256: bytes
    md5: bytes
    url: str
    content_type: str
    cycle: int
    epoch: int
    place: tuple[int, str, int, int]
    """As in `StoredAt`: seq, key, offset, length."""
    first_seen: datetime
    last_seen: datetime
    request_id: str
    pages: tuple[tuple[str, str], ...]
    size: tuple[int, int] | None = None
    """(width, height), upright, of one that was decoded."""
    last_modified: datetime | None = None

    @property
    def digest(self) -> str:
        return self.sha256.hex()


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(CrawledPicture)


def encode(picture: CrawledPicture) -> bytes:
    return _encoder.encode(picture)


def decode(data: bytes | memoryview) -> CrawledPicture:
    """Raises msgspec.MsgspecError."""
    return _decoder.decode(data)


def of_event(event: ImageFound, now: datetime, size: tuple[int, int] | None = None) -> CrawledPicture:
    """`now`: when the message was worked on. Raises ValueError for digests that are none."""
    return CrawledPicture(
        bytes.fromhex(event.sha256),
        bytes.fromhex(event.md5),
        event.url,
        event.content_type,
        event.cycle,
        event.epoch,
        (event.bytes.seq, event.bytes.key, event.bytes.offset, event.bytes.length),
        event.first_seen.astimezone(UTC),
        now,
        event.request_id,
        tuple((sighting.page_url, sighting.alt) for sighting in event.sightings),
        size,
        event.last_modified.astimezone(UTC) if event.last_modified is not None else None,
    )


def event_of(picture: CrawledPicture, session: int, account: int, *, shared: bool, registry_version: int) -> ImageFound:
    """The message that would tell of the picture now. Whose session it is, and whether it is shared, is not the file's to know."""
    width, height = picture.size or (None, None)
    return ImageFound(
        account=account,
        registry_version=registry_version,
        session=session,
        cycle=picture.cycle,
        epoch=picture.epoch,
        shared=shared,
        url=picture.url,
        sha256=picture.digest,
        md5=picture.md5.hex(),
        content_type=picture.content_type,
        bytes=StoredAt(*picture.place),
        first_seen=picture.first_seen,
        request_id=picture.request_id,
        sightings=tuple(Sighting(page_url, alt) for page_url, alt in picture.pages),
        width=width,
        height=height,
        last_modified=picture.last_modified,
    )


def joined(pictures: Sequence[CrawledPicture]) -> CrawledPicture:
    """One for all of the same bytes: the newest find, with every page of them (at most `PAGES`, those seen first)."""
    newest = max(pictures, key=lambda picture: (picture.cycle, picture.last_seen))
    return msgspec.structs.replace(
        newest,
        first_seen=min(picture.first_seen for picture in pictures),
        last_seen=max(picture.last_seen for picture in pictures),
        pages=pages_of(sorted(pictures, key=lambda picture: picture.first_seen)),
        size=next((picture.size for picture in pictures if picture.size is not None), None),
    )


def pages_of(pictures: Iterable[CrawledPicture]) -> tuple[tuple[str, str], ...]:
    """Each page once, in the order of the pictures."""
    pages: dict[str, str] = {}
    for picture in pictures:
        for page_url, alt in picture.pages:
            pages.setdefault(page_url, alt)
    return tuple(pages.items())[:PAGES]
