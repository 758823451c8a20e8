"""Crawls whose pictures a matcher has worked on, in one process: what was written, and what is found in it."""

from __future__ import annotations

from collections.abc import Sequence

from core.bus import Message
from core.events import IMAGES, ImageFound, SearchAsked, WebHit, encode
from core.models import Account
from core.services import Services
from matcher.crawled.library import CrawledLibrary
from matcher.crawled.registrations import Registrations
from matcher.crawled.searching import WebSearch
from matcher.decode import read_print
from matcher.images import Images
from scheduler import crawled
from tests.matcher.world import NOW, World


class Crawls(World):
    def __init__(self, services: Services, images: Images, library: CrawledLibrary, registrations: Registrations, web: WebSearch) -> None:
        super().__init__(services)
        self.images = images
        self.library = library
        self.registrations = registrations
        self.web = web

    def crawl(self, *events: ImageFound) -> None:
        """One poll of the matcher."""
        self.images.work([Message(IMAGES, 0, number, event.sha256, encode(event), {}) for number, event in enumerate(events)])

    def by(
        self, account: Account, session: int, data: bytes, *, shared: bool = False, pages: Sequence[str] = ("http://b.example/",)
    ) -> ImageFound:
        """Found by another account's session."""
        return self.found(data, account=account.id, session=session, shared=shared, pages=pages)

    def search(self, data: bytes, account: Account | None = None, *, transform: str = "scale", similar: bool = False) -> list[WebHit]:
        asker = account or self.account
        asked = SearchAsked("s", asker.id, 0, "queries/s", transform, similar, NOW, "p", "r", "web")
        return self.web.search(asked, read_print(data))

    def merge(self) -> int:
        """How many files went into others."""
        return sum(crawled.merge(self.services))

    def files(self, account: Account | None = None) -> list[list[str]]:
        """The digests in each file that the account sees."""
        return [[bytes(digest).hex() for digest in file.pictures.digests] for file in self.library.visible((account or self.account).id)]
