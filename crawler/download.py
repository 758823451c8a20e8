"""A lean HTTP/1.1 client for evidence: what was asked and what was answered, byte by byte, within limits of size and time.

`HttpClient` knows nothing of Scrapy; `LeanHandler` puts it behind Scrapy's DOWNLOAD_HANDLERS. Redirects, retries, cookies and robots.txt
are the crawler's business, not ours.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Final, cast

from scrapy import Request
from scrapy.core.downloader.handlers.base import BaseDownloadHandler
from scrapy.crawler import Crawler
from scrapy.http import Response

from core.netguard import HostUnknown, Netguard
from core.urls import host_port, normalise
from crawler.exchange import Accept, Answer, DownloadError, Exchange, Guard, NotSent

__all__ = ["DownloadError", "Exchange", "HttpClient", "LeanHandler", "fetched", "request_head"]

MAX_BYTES: Final = 8 << 20
IDLE_SECONDS: Final = 15.0
ACCEPT: Final = "text/html,application/xhtml+xml,image/*;q=0.9,*/*;q=0.8"

_BREAKS: Final = re.compile(r"[\r\n\0]")


class Connection(asyncio.Protocol):
    """A connection that serves one request at a time."""

    def __init__(self) -> None:
        self.ip = ""
        self.idle: asyncio.TimerHandle | None = None
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._done: asyncio.Future[None] | None = None
        self._answered_at = 0.0

    async def ask(self, request_head: bytes, answer: Answer, deadline: float, guard: Guard) -> tuple[float, float]:
        """Sends a request and reads its answer until `deadline` (monotonic); gives when it was sent and when the answer began.

        Raises:
            NotSent: `guard` said no.
            DownloadError: `sent_at` is set on it.
        """
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        if not guard():
            self.close()
            raise NotSent("its lease is over")
        self._answer, self._done = answer, loop.create_future()
        self._answered_at = sent_at = time.monotonic()
        self._transport.write(request_head)
        timer = loop.call_later(max(deadline - sent_at, 0.0), self._late)
        try:
            await self._done
        except DownloadError as error:
            error.sent_at = sent_at
            raise
        finally:
            timer.cancel()
            self._answer = self._done = None
            if not answer.reusable:
                self.close()
        return sent_at, self._answered_at

    def close(self) -> None:
        self.closed = True
        if self.idle is not None:
            self.idle.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, error: DownloadError | None = None) -> None:
        if self._done is None or self._done.done():
            return
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)

    def _late(self) -> None:
        if self._answer is None or not self._answer.head:
            self._finish(DownloadError("timeout", "no answer in time"))
        elif not self._answer.finished:
            self._answer.truncated = "time"
            self._finish()

    # --- called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.ip = str(transport.get_extra_info("peername")[0])

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self.close()
            return
        if not self._answer.started:
            self._answered_at = time.monotonic()
        try:
            self._answer.feed(data)
        except DownloadError as error:
            self._answer.reusable = False
            self._finish(error)
            return
        if self._answer.finished:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is None:
            return
        self._answer.reusable = False
        try:
            self._answer.end(reset=exc is not None)
        except DownloadError as error:
            self._finish(error)
        else:
            self._finish()


@dataclass(slots=True)
class _Pool:
    idle: list[Connection] = field(default_factory=list)

    def take(self) -> Connection | None:
        while self.idle:
            connection = self.idle.pop()
            if connection.idle is not None:
                connection.idle.cancel()
            if not connection.closed:
                return connection
        return None


class HttpClient:
    """Fetches from allowed addresses; keeps connections alive per (scheme, host, port). For one event loop."""

    def __init__(self, netguard: Netguard) -> None:
        self._netguard = netguard
        self._pools: dict[tuple[str, str, int], _Pool] = {}

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    async def fetch(
        self,
        url: str,
        *,
        headers: Iterable[tuple[str, str]] = (),
        timeout: float = 15.0,
        max_bytes: int = MAX_BYTES,
        accept: Accept | None = None,
        guard: Guard = lambda: True,
    ) -> Exchange:
        """GETs a normalised URL.

        Args:
            headers: instead of or beside Accept and Accept-Encoding.
            timeout: seconds for everything; an answer that is under way is then cut and kept.
            max_bytes: of the body, as received and as decoded; text is cut there, other types that declare more are refused.
            accept: asked with status and media type when the head is there; False = do not read the body.
            guard: asked right before the bytes are written, however long connecting took; False = do not send.

        Raises:
            AddressRefused: the host has no address that may be dialled.
            NotSent: `guard` said no.
            DownloadError: no answer.
        """
        deadline = time.monotonic() + timeout
        head = request_head(url, headers)
        key = (url.partition(":")[0], *host_port(url))
        connection = self._pools[key].take() if key in self._pools else None
        if connection is not None:
            answer = Answer(max_bytes, accept)
            try:
                return await self._exchange(url, key, connection, head, answer, deadline, guard)
            except DownloadError as error:
                if answer.started or error.reason == "timeout":
                    raise
        connection = await self._connect(key, deadline)
        return await self._exchange(url, key, connection, head, Answer(max_bytes, accept), deadline, guard)

    async def _exchange(
        self, url: str, key: tuple[str, str, int], connection: Connection, head: bytes, answer: Answer, deadline: float, guard: Guard
    ) -> Exchange:
        at = datetime.now(UTC)
        sent_at, answered_at = await connection.ask(head, answer, deadline, guard)
        if answer.reusable and not connection.closed:
            self._keep(key, connection)
        body = answer.body
        return Exchange(
            url,
            head,
            answer.head,
            answer.status,
            answer.headers,
            body,
            answer.decoded(body),
            connection.ip,
            sent_at,
            answered_at,
            at,
            time.monotonic() - sent_at,
            answer.truncated,
            answer.refused,
        )

    def _keep(self, key: tuple[str, str, int], connection: Connection) -> None:
        def expire() -> None:
            connection.close()
            pool = self._pools.get(key)
            if pool is not None:
                pool.idle = [other for other in pool.idle if not other.closed]
                if not pool.idle:
                    del self._pools[key]

        connection.idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, expire)
        self._pools.setdefault(key, _Pool()).idle.append(connection)

    async def _connect(self, key: tuple[str, str, int], deadline: float) -> Connection:
        scheme, host, port = key
        loop = asyncio.get_running_loop()
        failure = DownloadError("unreachable", "no address answered")
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                for _, address in await self._netguard.resolve(host, port):
                    try:
                        _, connection = await loop.create_connection(
                            Connection,
                            address,
                            port,
                            ssl=self._tls if scheme == "https" else None,
                            server_hostname=host if scheme == "https" else None,
                        )
                    except ssl.SSLError as error:
                        failure = DownloadError("tls", str(error.reason or error))
                    except OSError as error:
                        failure = DownloadError("unreachable", error.strerror or str(error))
                    else:
                        return connection
        except TimeoutError as error:
            raise DownloadError("timeout", "no connection in time") from error
        except HostUnknown as error:
            raise DownloadError("dns", error.details) from error
        raise failure

    async def close(self) -> None:
        for pool in self._pools.values():
            for connection in pool.idle:
                connection.close()
        self._pools.clear()


def request_head(url: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """The bytes of a GET. Raises DownloadError for a URL that is not normalised and for a header with line breaks."""
    if normalise(url) != url:
        raise DownloadError("url", "not a normalised http or https URL")
    authority, slash, path = url.partition("://")[2].partition("/")
    fields = {"host": ("Host", authority), "accept": ("Accept", ACCEPT), "accept-encoding": ("Accept-Encoding", "gzip, deflate")}
    fields.update((name.lower(), (name, value)) for name, value in headers if name.lower() != "host")
    for name, value in fields.values():
        if _BREAKS.search(name) or _BREAKS.search(value) or ":" in name or not name.isascii():
            raise DownloadError("header", f"{name!r} is no header")
    lines = [f"GET {slash}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.values())]
    return "\r\n".join([*lines, "", ""]).encode("utf-8")


class ExchangeResponse(Response):
    """Scrapy's view of an answer: URL, status and decoded body; the rest is in `exchange`."""

    exchange: Exchange


def fetched(response: Response) -> Exchange:
    """The exchange behind a response that LeanHandler gave."""
    assert isinstance(response, ExchangeResponse)
    return response.exchange


class LeanHandler(BaseDownloadHandler):
    """Scrapy's download handler. From request.meta: `address` (the URL, byte by byte), `timeout`, `max_bytes`, `accept`, `guard`."""

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._client = HttpClient(Netguard(crawler.settings.getlist("FILIGRANE_ALLOW_NETWORKS")))

    async def download_request(self, request: Request) -> Response:
        meta = request.meta
        exchange = await self._client.fetch(
            meta.get("address", request.url),
            headers=[(name.decode("latin-1"), b", ".join(values).decode("latin-1")) for name, values in request.headers.items()],
            timeout=meta.get("timeout", 15.0),
            max_bytes=meta.get("max_bytes", MAX_BYTES),
            accept=meta.get("accept"),
            guard=meta.get("guard", lambda: True),
        )
        response = ExchangeResponse(request.url, status=exchange.status, body=exchange.decoded)
        response.exchange = exchange
        return response

    async def close(self) -> None:
        await self._client.close()
