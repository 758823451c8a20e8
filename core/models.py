"""The tables. The database is the truth about everything small and relational (see docs/adr/0001).

Nothing here that SQLite or PostgreSQL lacks; dates are UTC; ids are never used twice.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time; refuses naive values on the way in, gives UTC on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime reached the database; use UTC")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def storable(text: str) -> str:
    """The text as every database takes it: NUL characters and lone surrogates, which PostgreSQL refuses, become U+FFFD."""
    if text.isascii():
        return text.replace("\0", "\ufffd")
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Words(TypeDecorator[str]):
    """Text, also from outside; what is stored and what is looked for go through `storable`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


class Line(TypeDecorator[str]):
    """The same with at most so many characters. PostgreSQL refuses longer ones, so who fills the column from outside checks them."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


Id = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    type_annotation_map = {datetime: UtcDateTime, int: BigInteger, dict[str, Any]: JSON, list[str]: JSON, list[float]: JSON}  # noqa: RUF012


def _id() -> Mapped[int]:
    return mapped_column(Id, primary_key=True, autoincrement=True)


class Account(Base):
    """Who owns media and sessions. `registry_version` rises with each change of its registered pictures, in the same transaction."""

    __tablename__ = "accounts"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = _id()
    username: Mapped[str] = mapped_column(Line(150), unique=True)
    email: Mapped[str] = mapped_column(Line(254), default="")
    full_name: Mapped[str] = mapped_column(Line(254), default="")
    home: Mapped[str] = mapped_column(Line(150), unique=True)
    password_hash: Mapped[str | None] = mapped_column(Line(256))
    token_hash: Mapped[str] = mapped_column(Line(64), unique=True)
    token_generation: Mapped[int] = mapped_column(default=1)
    operator: Mapped[bool] = mapped_column(default=False)
    registry_version: Mapped[int] = mapped_column(default=0)
    scanned_version: Mapped[int] = mapped_column(default=0, server_default="0")
    """Up to this version what was registered has been looked for in the crawled pictures."""
    image_quota: Mapped[int | None]
    """The most pictures that its tree may have; none: no maximum."""
    disk_quota: Mapped[int | None]
    """The same of their bytes."""
    created: Mapped[datetime]


class AccountKey(Base):
    """The RSA key that an account's registrations are encrypted to while they travel, made when it is first needed."""

    __tablename__ = "account_keys"

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True, autoincrement=False)
    sealed: Mapped[bytes]
    """The private key, encrypted with a key that is not in the database (`core.vault`)."""
    created: Mapped[datetime]


class Allowance(Base):
    """What an account has used of something that is rationed, in a window of time that begins with the first use after the last one."""

    __tablename__ = "allowances"

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Line(32), primary_key=True)
    started: Mapped[datetime]
    used: Mapped[int]


class Watermarking(Base):
    """A picture that is to be marked while nobody waits; its objects lie below `folder`, their static addresses are given out already."""

    __tablename__ = "watermarkings"
    __table_args__ = (Index("ix_watermarkings_state", "state", "due"), {"sqlite_autoincrement": True})

    id: Mapped[int] = _id()
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    folder: Mapped[str] = mapped_column(Line(255), unique=True)
    sealed: Mapped[bytes]
    """How it is to be marked; encrypted, since a passphrase may be in it (`core.vault`)."""
    state: Mapped[str] = mapped_column(Line(16), default="pending")
    """pending | done | failed"""
    reason: Mapped[str | None] = mapped_column(Words())
    """Why it failed."""
    tries: Mapped[int] = mapped_column(default=0)
    due: Mapped[datetime]
    """When it may be taken up: at once, or when whoever took it up last must be dead."""
    created: Mapped[datetime]
    expires: Mapped[datetime]


class Picture(Base):
    """A registered picture: (account, hash of the original's decoded pixels). The row outlives its media."""

    __tablename__ = "pictures"
    __table_args__ = (
        UniqueConstraint("account_id", "pixel_hash"),
        Index("ix_pictures_version", "account_id", "version"),
        Index("ix_pictures_preview", "preview_id"),
        Index("ix_pictures_thumbnail", "thumbnail_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = _id()
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    pixel_hash: Mapped[str] = mapped_column(Line(64))
    width: Mapped[int]
    height: Mapped[int]
    credit: Mapped[str | None] = mapped_column(Words())
    fingerprint_key: Mapped[str] = mapped_column(Line(255))
    preview_id: Mapped[int] = mapped_column(ForeignKey("statics.id"))
    thumbnail_id: Mapped[int] = mapped_column(ForeignKey("statics.id"))
    version: Mapped[int]
    """The account's registry version at this picture's last change."""
    small_key: Mapped[str | None] = mapped_column(Line(255))
    """Object key of the small picture that its watermarks are looked for with; none while no key is registered."""
    reduced: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Fingerprint and preview were made of a registration's small picture, for lack of the original."""
    deleted: Mapped[bool] = mapped_column(default=False)
    """No media is left: not searched for any more."""
    created: Mapped[datetime]
    registrations: Mapped[list[Registration]] = relationship(back_populates="picture", lazy="selectin")


class Registration(Base):
    """A way in which a picture is registered: plain (no key) or with the key of one watermark."""

    __tablename__ = "registrations"
    __table_args__ = (
        UniqueConstraint("picture_id", "key_id"),
        Index("ix_registrations_preview", "preview_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = _id()
    picture_id: Mapped[int] = mapped_column(ForeignKey("pictures.id"))
    key_id: Mapped[str] = mapped_column(Line(64), default="")
    """Hex id of the watermark's key; empty = plain (not NULL, which no unique constraint counts)."""
    lmk_key: Mapped[str | None] = mapped_column(Line(255))
    """Object key of the registration's bytes; none for plain."""
    preview_id: Mapped[int | None] = mapped_column(ForeignKey("statics.id"))
    """The preview that carries this key's mark; none: the picture's is shown."""
    created: Mapped[datetime]
    picture: Mapped[Picture] = relationship(back_populates="registrations")


class Media(Base):
    """A node of an account's media tree: a folder, or a picture at a path."""

    __tablename__ = "media"
    __table_args__ = (
        UniqueConstraint("path").ddl_if(dialect="sqlite"),
        ExcludeConstraint(("path", "="), using="hash", name="ex_media_path").ddl_if(dialect="postgresql"),  # of any length
        Index("ix_media_children", "parent_id", "id"),
        Index("ix_media_registration", "registration_id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = _id()
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("media.id"))
    path: Mapped[str] = mapped_column(Words())
    """From the home directory on, no leading slash; NFC."""
    type: Mapped[str] = mapped_column(Line(16))
    """folder | image"""
    registration_id: Mapped[int | None] = mapped_column(ForeignKey("registrations.id"))
    exclusive: Mapped[bool | None]
    disk_usage: Mapped[int] = mapped_column(default=0)
    created: Mapped[datetime]
    registration: Mapped[Registration | None] = relationship(lazy="joined")


class Static(Base):
    """An object that is served without a token under an address that nobody can guess: /static/<id>,<hash>."""

    __tablename__ = "statics"
    __table_args__ = (Index("ix_statics_expires", "expires"), {"sqlite_autoincrement": True})

    id: Mapped[int] = _id()
    key: Mapped[str] = mapped_column(Line(255))
    content_type: Mapped[str] = mapped_column(Line(100))
    filename: Mapped[str] = mapped_column(Line(255))
    created: Mapped[datetime]
    expires: Mapped[datetime | None]


class CrawlSession(Base):
    """A site, crawled again and again."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index("ix_sessions_account", "account_id", "id"),
        Index("ix_sessions_due", "state", "next_due"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = _id()
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    domain: Mapped[str] = mapped_column(Line(255))
    """The registrable domain (host:port for addresses and single labels): the unit of leases and of politeness."""
    start_urls: Mapped[list[str]]
    crawl_delay: Mapped[float] = mapped_column(default=300.0)
    download_delay: Mapped[float] = mapped_column(default=1.0)
    download_timeout: Mapped[float] = mapped_column(default=15.0)
    search: Mapped[bool] = mapped_column(default=True)
    robots: Mapped[bool] = mapped_column(default=True)
    shared: Mapped[bool] = mapped_column(default=False)
    interval: Mapped[float | None]
    cron: Mapped[str | None] = mapped_column(Line(100))
    max_depth: Mapped[int | None]
    max_pages: Mapped[int | None]
    user_agent: Mapped[str | None] = mapped_column(Line(255))
    state: Mapped[str] = mapped_column(Line(16), default="pending")
    """pending | running | done | failed | paused"""
    reason: Mapped[str | None] = mapped_column(Words())
    """Why the last cycle failed."""
    cycle_count: Mapped[int] = mapped_column(default=0)
    snapshot_key: Mapped[str | None] = mapped_column(Line(255))
    """The frontier as the last whole cycle left it."""
    ctime: Mapped[datetime]
    mtime: Mapped[datetime]
    stime: Mapped[datetime | None]
    next_due: Mapped[datetime | None]
    """When the scheduler sets it to pending again."""
    deleted: Mapped[bool] = mapped_column(default=False)
    """Gone for its owner; the sweeper removes what it left."""


class Lease(Base):
    """Who may crawl a domain. Each change of holder raises the epoch; what carries an older one no longer counts."""

    __tablename__ = "leases"

    domain: Mapped[str] = mapped_column(Line(255), primary_key=True)
    holder: Mapped[str] = mapped_column(Line(100))
    epoch: Mapped[int]
    expires: Mapped[datetime]
    delay: Mapped[float] = mapped_column(default=0.0, server_default="0")
    """Seconds between two requests to the domain, as its last holder kept them: the next one waits that long first."""
    wanted: Mapped[datetime | None]
    """When another worker last asked for it; its holder gives it back after its turn."""


class Segment(Base):
    """A stored piece of a cycle: of images.tar, of pages.warc, or of the journal. The row is what *stored* means."""

    __tablename__ = "segments"
    __table_args__ = (
        UniqueConstraint("session_id", "cycle", "kind", "seq"),
        Index("ix_segments_unsent", "kind", "sent", "stored"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = _id()
    session_id: Mapped[int] = mapped_column(ForeignKey("sessions.id"))
    cycle: Mapped[int]
    kind: Mapped[str] = mapped_column(Line(8))
    """tar | warc | journal"""
    seq: Mapped[int]
    """Counts within (session, cycle, kind) from 0; the order in the artifact."""
    epoch: Mapped[int]
    key: Mapped[str] = mapped_column(Line(255), unique=True)
    length: Mapped[int]
    sha256: Mapped[str] = mapped_column(Line(64))
    stored: Mapped[datetime]
    sent: Mapped[datetime | None]
    """journal rows: when the bus acknowledged the messages of this piece."""
    artifact_offset: Mapped[int | None]
    """tar and warc rows, once joined: where the segment begins in the batch's artifact."""
    deleted: Mapped[bool] = mapped_column(default=False)
    """The object is gone; the bytes are read from the batch's artifact."""
    tries: Mapped[int] = mapped_column(default=0, server_default="0")
    """journal rows: how often the piece could not be read, or its messages not be published for what is in them."""
    trouble: Mapped[str | None] = mapped_column(Words())
    """Why, the last time."""
    given_up: Mapped[datetime | None]
    """Since when nobody tries any more."""


class Batch(Base):
    """What one cycle left. The row appears when every artifact is whole and verified."""

    __tablename__ = "batches"
    __table_args__ = (
        UniqueConstraint("session_id", "crawl_cycle"),
        Index("ix_batches_account", "account_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = _id()
    session_id: Mapped[int] = mapped_column(ForeignKey("sessions.id"))
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    crawl_cycle: Mapped[int]
    ctime: Mapped[datetime]
    artifacts: Mapped[list[Artifact]] = relationship(lazy="selectin", back_populates="batch")


class Artifact(Base):
    """One file of a batch: images.log, images.tar, pages.log, pages.warc, videos.log, documents.log, skipped.log."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("batch_id", "name"), Index("ix_artifacts_static", "static_id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = _id()
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"))
    name: Mapped[str] = mapped_column(Line(32))
    count: Mapped[int]
    """Rows of a log; members of a TAR; records of a WARC."""
    key: Mapped[str] = mapped_column(Line(255))
    length: Mapped[int]
    sha256: Mapped[str] = mapped_column(Line(64))
    static_id: Mapped[int] = mapped_column(ForeignKey("statics.id"))
    batch: Mapped[Batch] = relationship(back_populates="artifacts")


class CrawledFile(Base):
    """Crawled pictures of one session that can be searched: their features, and where their bytes are. Immutable; a part of an object."""

    __tablename__ = "crawled_files"
    __table_args__ = (
        UniqueConstraint("key", "offset"),
        Index("ix_crawled_files_session", "session_id", "retired"),
        Index("ix_crawled_files_fresh", "fresh", "retired", "id"),
        Index("ix_crawled_files_retired", "retired"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = _id()
    session_id: Mapped[int] = mapped_column(ForeignKey("sessions.id"))
    key: Mapped[str] = mapped_column(Line(255))
    offset: Mapped[int]
    """Where it begins in the object; fresh ones share one, which a matcher stored for all sessions of a poll."""
    length: Mapped[int]
    sha256: Mapped[str] = mapped_column(Line(64))
    """Of the part."""
    pictures: Mapped[int]
    last_seen: Mapped[datetime]
    """When a picture of it was last found on a page."""
    fresh: Mapped[bool]
    """As a matcher stored it, not merged yet."""
    stored: Mapped[datetime]
    retired: Mapped[datetime | None]
    """Since when another file has its pictures, or nobody wants them: not searched any more, deleted after a while."""


class Match(Base):
    """A registered picture found on a page: one row per (account, picture, key or none, found bytes, page)."""

    __tablename__ = "matches"
    __table_args__ = (
        UniqueConstraint("account_id", "picture_id", "key_id", "sha256", "page_url"),
        Index("ix_matches_created", "account_id", "created", "id"),
        Index("ix_matches_site", "account_id", "picture_id", "site"),
        Index("ix_matches_sha256", "account_id", "sha256"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = _id()
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    picture_id: Mapped[int] = mapped_column(ForeignKey("pictures.id"))
    type: Mapped[str] = mapped_column(Line(8), default="web")
    key_id: Mapped[str] = mapped_column(Line(64), default="")
    sha256: Mapped[str] = mapped_column(Line(64))
    md5: Mapped[str] = mapped_column(Line(32))
    page_url: Mapped[str] = mapped_column(Words())
    site: Mapped[str] = mapped_column(Line(255))
    """Registrable domain of the page."""
    query_url: Mapped[str] = mapped_column(Words())
    """Where the found picture was."""
    alt: Mapped[str] = mapped_column(Words(), default="")
    session_id: Mapped[int]
    watermarked: Mapped[bool]
    exclusive: Mapped[bool | None]
    """As it was when the match was recorded."""
    p_value: Mapped[float | None]
    payload: Mapped[int | None]
    verdict: Mapped[str | None] = mapped_column(Line(16))
    score: Mapped[float | None]
    mirrored: Mapped[bool | None]
    overlap: Mapped[float | None]
    transform: Mapped[list[float] | None]
    """9 numbers, row by row: registered -> found, in pixels."""
    width: Mapped[int | None]
    height: Mapped[int | None]
    last_modified: Mapped[datetime | None]
    first_seen: Mapped[datetime]
    request_id: Mapped[str] = mapped_column(Line(40))
    created: Mapped[datetime]
    media: Mapped[list[Media]] = relationship(secondary="match_media", lazy="selectin")
    picture: Mapped[Picture] = relationship(lazy="joined")


class MatchMedia(Base):
    """The media that a match is about: `paths` is built from these."""

    __tablename__ = "match_media"
    __table_args__ = (Index("ix_match_media_media", "media_id", "match_id"),)

    match_id: Mapped[int] = mapped_column(ForeignKey("matches.id", ondelete="CASCADE"), primary_key=True)
    media_id: Mapped[int] = mapped_column(ForeignKey("media.id", ondelete="CASCADE"), primary_key=True)


class MatchSurplus(Base):
    """How many further pages of a site showed a picture after its 1,000 rows were full; the row means that they are."""

    __tablename__ = "match_surplus"

    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    picture_id: Mapped[int] = mapped_column(ForeignKey("pictures.id"), primary_key=True)
    site: Mapped[str] = mapped_column(Line(255), primary_key=True)
    count: Mapped[int] = mapped_column(default=0)
    """About how many, from the sketch."""
    sketch: Mapped[bytes | None]
    """Which ones, for `core.repo.distinct`."""


class Topic(Base):
    """A topic of the bus as the scheduler saw it last: another identity means that messages are gone."""

    __tablename__ = "topics"

    name: Mapped[str] = mapped_column(Line(64), primary_key=True)
    identity: Mapped[str | None] = mapped_column(Line(255))
    """None until the scheduler has seen it."""
    missed: Mapped[datetime | None]
    """Since when it is known that messages are gone which nobody had read; None once they are sent again."""


class Outbox(Base):
    """A message to be sent, written in the transaction that it tells of; its body is built from the database when it is sent."""

    __tablename__ = "outbox"
    __table_args__ = ({"sqlite_autoincrement": True},)

    id: Mapped[int] = _id()
    topic: Mapped[str] = mapped_column(Line(64))
    subject_id: Mapped[int]
    """sessions: the session's id; media: the picture's id."""
    created: Mapped[datetime]
