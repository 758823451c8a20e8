"""The messages on the bus: frozen, versioned, each well under 1 MB.

A message is JSON with a `type` and a `v`; a reader refuses what is newer than it knows (it goes to the dead letters, nothing is guessed).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from core.errors import InvalidInput

IMAGES: Final = "images"
FEATURES: Final = "features"
MEDIA: Final = "media"
SEARCHES: Final = "searches"
RESULTS: Final = "results"
SESSIONS: Final = "sessions"

PRIVATE: Final = "private"
WEB: Final = "web"
"""Categories of searches."""

SIGHTINGS_PER_MESSAGE: Final = 500


class Sighting(msgspec.Struct, frozen=True):
    """One image URL found on one page."""

    page_url: str
    alt: str = ""


class StoredAt(msgspec.Struct, frozen=True):
    """Where the bytes of a picture are: in the TAR segment (session, cycle, seq), from `offset` on, `length` bytes."""

    seq: int
    key: str
    offset: int
    length: int


class ImageFound(msgspec.Struct, frozen=True, tag="image_found"):
    """A picture was fetched and stored, or a stored one was seen on further pages. Key: sha256."""

    account: int
    registry_version: int
    session: int
    cycle: int
    epoch: int
    shared: bool
    url: str
    sha256: str
    md5: str
    content_type: str
    bytes: StoredAt
    first_seen: datetime
    request_id: str
    sightings: tuple[Sighting, ...]
    width: int | None = None
    height: int | None = None
    last_modified: datetime | None = None
    v: int = 1


class FeaturesFound(msgspec.Struct, frozen=True, tag="features_found"):
    """A picture that was found, and its fingerprint (some 40 kB): for every shard of what is registered. Key: sha256."""

    image: ImageFound
    fingerprint: bytes
    v: int = 1


class Key(msgspec.Struct, frozen=True):
    """A registration of a picture: `key_id` is empty for plain ones."""

    registration: int
    key_id: str
    lmk_key: str | None


class MediaChanged(msgspec.Struct, frozen=True, tag="media_changed"):
    """The whole current state of a registered picture; receivers drop older versions. Key: picture id."""

    account: int
    version: int
    picture: int
    fingerprint_key: str
    keys: tuple[Key, ...]
    deleted: bool
    small_key: str | None = None
    """Object key of the small picture that the keys are looked for with."""
    v: int = 1


class SessionWoken(msgspec.Struct, frozen=True, tag="session_woken"):
    """A session is pending, or its owner changed or deleted it: look at the database. Key: domain."""

    session: int
    domain: str
    v: int = 1


class SearchAsked(msgspec.Struct, frozen=True, tag="search_asked"):
    """A synchronous search; late ones are dropped. Key: search id."""

    search: str
    account: int
    registry_version: int
    key: str
    """Object key of the query's bytes."""
    transform: str
    similar: bool
    deadline: datetime
    reply_to: str
    request_id: str
    category: str | None = None
    """`private`: among the account's own media; `web`: among the crawled pictures that it may see; None: both."""
    v: int = 1


class Why(msgspec.Struct, frozen=True):
    """What a verdict rests on."""

    correspondences: int
    """Pairs of features of both pictures that look alike; 0 where the pictures were compared as a whole."""
    inliers: int
    """Those of them that the transform explains."""
    likeness: float
    """Share of the textured blocks that agree once one picture is laid over the other, 0..1."""
    ncc: float
    """Median of these blocks' normalised cross-correlation, -1..1."""


class SearchHit(msgspec.Struct, frozen=True):
    picture: int
    key_id: str
    verdict: str | None
    score: float | None
    p_value: float | None
    payload: int | None
    mirrored: bool | None
    overlap: float | None
    transform: tuple[float, ...] | None
    why: Why | None = None


class WebHit(msgspec.Struct, frozen=True, kw_only=True):
    """A crawled picture. Verdict and so on are None where nothing was verified (`similar`); `score` then says how alike it is."""

    sha256: str
    md5: str
    url: str
    pages: tuple[str, ...]
    """Of the pages that showed it, the first."""
    page_count: int
    """How many pages are known."""
    first_seen: datetime
    width: int
    height: int
    credit: str | None = None
    last_modified: datetime | None = None
    verdict: str | None = None
    score: float | None = None
    mirrored: bool | None = None
    overlap: float | None = None
    """How much of the crawled picture the query shows, 0..1."""
    transform: tuple[float, ...] | None = None
    """9 numbers, row by row: crawled -> query, in pixels."""


class SearchAnswered(msgspec.Struct, frozen=True, tag="search_answered"):
    """Key: the asking process."""

    search: str
    hits: tuple[SearchHit, ...]
    error_code: str | None = None
    error_details: str | None = None
    web: tuple[WebHit, ...] = ()
    candidates: int | None = None
    """How many registered pictures the index proposed; None where none were asked for."""
    shard: int = 0
    shards: int = 1
    """The answer is whole once each of so many shards has given its part."""
    v: int = 1


Event = ImageFound | FeaturesFound | MediaChanged | SessionWoken | SearchAsked | SearchAnswered

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Event)
_VERSION = 1


class MessageInvalid(InvalidInput):
    """The bytes are no message of a version that this program knows."""

    default_code = "message_invalid"


def encode(event: Event) -> bytes:
    """The message's bytes (UTF-8 JSON)."""
    return _encoder.encode(event)


def decode(data: bytes) -> Event:
    """The message in the bytes.

    Raises:
        MessageInvalid: not JSON, an unknown type, a field missing, or a version newer than ours.
    """
    try:
        event: Event = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise MessageInvalid(f"not a message that this version reads: {error}") from error
    if event.v > _VERSION:
        raise MessageInvalid(f"message version {event.v} is newer than {_VERSION}; upgrade this process")
    return event
