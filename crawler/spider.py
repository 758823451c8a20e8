"""What Scrapy runs: one spider for all sessions. It turns tasks into requests and gives every answer to the worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Protocol

from scrapy import Request, Spider
from scrapy.crawler import Crawler
from scrapy.http import Response
from twisted.python.failure import Failure

from crawler.cycle import LIMITS, Cycle
from crawler.download import fetched
from crawler.exchange import Exchange, Guard
from crawler.frontier import Task

SETTINGS: dict[str, Any] = {
    "TWISTED_REACTOR_ENABLED": False,
    "SCHEDULER": "crawler.queue.SessionQueue",
    "DOWNLOAD_HANDLERS": {"http": "crawler.download.LeanHandler", "https": "crawler.download.LeanHandler"},
    # Politeness, redirects, robots.txt, retries and decoding are ours: they have to be journalled.
    "DOWNLOAD_DELAY": 0,
    "CONCURRENT_REQUESTS": 0,
    "CONCURRENT_REQUESTS_PER_DOMAIN": 1_000_000,
    "DOWNLOADER_MIDDLEWARES_BASE": {},
    "SPIDER_MIDDLEWARES_BASE": {},
    "EXTENSIONS_BASE": {},
    "CONCURRENT_ITEMS": 1,
    "LOG_ENABLED": False,
    "STATS_DUMP": False,
    "TELNETCONSOLE_ENABLED": False,
    "REMOTE_CONTROL_ENABLED": False,
}


class Desk(Protocol):
    """Where answers go."""

    spider: SessionSpider

    def guard(self, cycle: Cycle, task: Task) -> Guard: ...

    def answered(self, cycle: Cycle, task: Task, exchange: Exchange) -> None: ...

    def failed(self, cycle: Cycle, task: Task, error: BaseException) -> None: ...


class SessionSpider(Spider):
    """Lives as long as the worker."""

    name = "filigrane"

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.desk = desk
        desk.spider = self

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> SessionSpider:
        spider = cls(*args, **kwargs)
        spider._set_crawler(crawler)
        return spider

    async def start(self) -> AsyncIterator[Any]:
        """Nothing to start with: the queue has what is to be fetched."""
        nothing: tuple[Request, ...] = ()
        for request in nothing:
            yield request

    def request(self, cycle: Cycle, task: Task) -> Request:
        """A task as Scrapy's request; `address` is what the handler asks for, byte by byte."""
        meta = {
            "cycle": cycle,
            "task": task,
            "address": task.address,
            "timeout": cycle.session.download_timeout,
            "max_bytes": LIMITS[task.kind],
            "accept": partial(cycle.wants, task),
            "guard": self.desk.guard(cycle, task),
            "download_slot": "all",
        }
        headers = {"User-Agent": cycle.agent}
        return Request(task.address, callback=self.answered, errback=self.failed, meta=meta, headers=headers, dont_filter=True)

    def answered(self, response: Response) -> None:
        self.desk.answered(response.meta["cycle"], response.meta["task"], fetched(response))

    def failed(self, failure: Failure) -> None:
        meta = failure.request.meta  # type: ignore[attr-defined]
        assert failure.value is not None
        self.desk.failed(meta["cycle"], meta["task"], failure.value)
