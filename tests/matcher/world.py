"""An account, a session, stored segments and registered pictures on the real embedded parts."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import count

from sqlalchemy import select

from core import outbox
from core.bus import Message, Outgoing
from core.events import IMAGES, SEARCHES, ImageFound, Sighting, StoredAt, encode
from core.models import Account, Match
from core.repo import accounts, crawled, crawls
from core.services import Services
from core.shards import GROUP
from matcher import worker
from matcher.decode import read_pixels, read_print
from matcher.pipeline import Source
from matcher.registrar import Registered, prepare, register
from matcher.watermark.registration import Registration

NOW = datetime(2026, 11, 1, tzinfo=UTC)


class World:
    def __init__(self, services: Services) -> None:
        self.services = services
        self._segments = count()
        self.account = self.add_account("anna")
        self.session = self.add_session(self.account)

    def add_account(self, name: str) -> Account:
        with self.services.database.write() as tx:
            account, _ = accounts.create(tx, self.services.settings.secret, name, now=NOW)
            return account

    def add_session(self, account: Account, *, shared: bool = False) -> int:
        with self.services.database.write() as tx:
            urls, domain = ["http://site.example/"], "site.example"
            return crawls.create_session(tx, account.id, start_urls=urls, domain=domain, now=NOW, shared=shared).id

    def register(self, name: str, data: bytes, watermark: Registration | None = None, account: Account | None = None) -> Registered:
        owner = account or self.account
        done = register(
            self.services, owner.id, f"{owner.home}/{name}", prepare(data, watermark), disk_usage=len(data), watermark=watermark
        )
        outbox.drain(self.services)
        return done

    def store(self, pictures: Sequence[bytes]) -> list[StoredAt]:
        """The bytes in one segment, with something between them."""
        seq = next(self._segments)
        key = f"crawl/{self.session}/1/1/{seq}.tar"
        body, places = b"", []
        for data in pictures:
            body += b"\0" * 512
            places.append(StoredAt(seq, key, len(body), len(data)))
            body += data
        self.services.store.put(key, body)
        return places

    def found(
        self, data: bytes, place: StoredAt | None = None, pages: Sequence[str] = ("http://site.example/a",), **more: object
    ) -> ImageFound:
        fields: dict[str, object] = {
            "account": self.account.id,
            "registry_version": self.version(),
            "session": self.session,
            "cycle": 1,
            "epoch": 1,
            "shared": False,
            "url": "http://cdn.example/x.jpg",
            "sha256": hashlib.sha256(data).hexdigest(),
            "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
            "content_type": "image/jpeg",
            "bytes": place or self.store([data])[0],
            "first_seen": NOW,
            "request_id": "r1",
            "sightings": tuple(Sighting(page, "a picture") for page in pages),
        }
        return ImageFound(**{**fields, **more})  # type: ignore[arg-type]

    def version(self) -> int:
        with self.services.database.read() as tx:
            return accounts.by_id(tx, self.account.id).registry_version

    def is_behind(self) -> bool:
        """Whether something registered was not looked for yet in what was crawled."""
        with self.services.database.read() as tx:
            return bool(crawled.behind(tx))

    def publish(self, *events: ImageFound) -> None:
        self.services.bus.publish([Outgoing(IMAGES, event.sha256, encode(event)) for event in events])

    def matches(self) -> list[Match]:
        with self.services.database.read() as tx:
            return list(tx.scalars(select(Match).order_by(Match.page_url, Match.key_id)))


def given(data: bytes) -> Source:
    """A picture that is here, decoded in this process."""
    return Source(partial(read_print, data), partial(read_pixels, data))


def polled(services: Services, topic: str, key: str | None = None) -> list[Message]:
    """The topic's messages (of a key), in the order in which they were published."""
    follower = services.bus.follow(topic, "earliest")
    try:
        return sorted((m for m in follower.poll(0.1, 1000) if key in (None, m.key)), key=lambda message: message.offset)
    finally:
        follower.close()


@contextmanager
def matching(world: World) -> Iterator[None]:
    """A matcher, until nothing is left to do."""
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(world.services, stop))
    thread.start()
    try:
        yield
        while thread.is_alive() and (any(world.services.bus.lag(topic, GROUP) for topic in (IMAGES, SEARCHES)) or world.is_behind()):
            stop.wait(0.05)
    finally:
        stop.set()
        thread.join()
