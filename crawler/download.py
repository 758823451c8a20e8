"""A lean HTTP/1.1 client for evidence: what was asked and what was answered, byte by byte, within limits of size and time.

`HttpClient` knows nothing of Scrapy; `LeanHandler` puts it behind Scrapy's DOWNLOAD_HANDLERS. Redirects, retries, cookies and robots.txt
are the crawler's business, not ours.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final, Literal, cast

import httptools
from scrapy import Request
from scrapy.core.downloader.handlers.base import BaseDownloadHandler
from scrapy.crawler import Crawler
from scrapy.http import Response

from core.errors import FiligraneError
from core.netguard import HostUnknown, Netguard
from core.urls import host_port, normalise

MAX_HEAD: Final = 64 << 10
MAX_BYTES: Final = 8 << 20
MAX_INTERIM: Final = 20
"""1xx answers before the real one."""
MAX_MEMBERS: Final = 1000
"""gzip members in one body."""
IDLE_SECONDS: Final = 15.0
ACCEPT: Final = "text/html,application/xhtml+xml,image/*;q=0.9,*/*;q=0.8"

Reason = Literal["timeout", "dns", "unreachable", "tls", "protocol", "disconnected", "url", "header"]
Truncated = Literal["length", "time", "disconnect"]
Accept = Callable[[int, str], bool]

_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_BREAKS: Final = re.compile(r"[\r\n\0]")


class DownloadError(FiligraneError):
    """No answer came. `reason` is for pages.log; `sent_at` is when the request went out (monotonic), None if it never did."""

    default_code = "download_failed"

    def __init__(self, reason: Reason, details: str = "") -> None:
        super().__init__(details or reason)
        self.reason: Reason = reason
        self.sent_at: float | None = None


@dataclass(slots=True)
class Exchange:
    """A request and its answer."""

    url: str
    request_head: bytes
    """As sent, with the empty line."""
    response_head: bytes
    """As received, with the empty line; of the final answer, not of 1xx ones."""
    status: int
    headers: list[tuple[bytes, bytes]]
    """Names in lower case, in order."""
    body: bytes
    """As received: Transfer-Encoding undone, Content-Encoding not."""
    decoded: bytes
    """Content-Encoding undone too; at most max_bytes."""
    ip: str
    """The address dialled."""
    sent_at: float
    """When the request's bytes were written, time.monotonic()."""
    at: datetime
    """The same moment, UTC."""
    elapsed: float
    """Seconds from then to the last byte."""
    truncated: Truncated | None
    refused: str
    """Why the body was not read or is of no use: `type`, `size` (declared too large), `encoding` (cannot be decoded); else empty."""

    def header(self, name: str) -> str:
        """The first value of a header (name in lower case), or an empty string."""
        return _header(self.headers, name.encode())

    @property
    def content_type(self) -> str:
        """The media type in lower case without parameters; empty if the server gave none."""
        return _essence(self.headers)


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    for key, value in headers:
        if key == name:
            try:
                return value.decode()
            except UnicodeDecodeError:
                return value.decode("latin-1")
    return ""


def _essence(headers: Iterable[tuple[bytes, bytes]]) -> str:
    return _header(headers, b"content-type").partition(";")[0].strip().lower()


class Inflater:
    """Undoes gzip or deflate piece by piece and stops at a limit."""

    def __init__(self, limit: int, *, deflate: bool) -> None:
        self.output: list[bytes] = []
        self._room = limit
        self._members = 1
        self._fallback = deflate
        self._seen = b""
        self._stream = zlib.decompressobj(47)

    def feed(self, data: bytes) -> int | None:
        """Decodes a piece. None = all of it; else the limit was reached and the number is how many bytes of it were not needed.

        Raises zlib.error when the data is not what its header says.
        """
        if self._fallback:
            data = self._begin(data)
        while data:
            piece = self._stream.decompress(data, self._room + 1)
            if len(piece) > self._room:
                self.output.append(piece[: self._room])
                return len(self._stream.unconsumed_tail) + len(self._stream.unused_data)
            self.output.append(piece)
            self._room -= len(piece)
            data = self._next_member(self._stream.unused_data) if self._stream.eof else self._stream.unconsumed_tail
        return None

    def _begin(self, data: bytes) -> bytes:
        """Some servers send `deflate` without the zlib header: its two bytes decide."""
        self._seen += data
        if len(self._seen) < 2:
            return b""
        self._fallback = False
        if self._seen[0] & 0x0F != 8 or int.from_bytes(self._seen[:2], "big") % 31:
            self._stream = zlib.decompressobj(-15)
        return self._seen

    def _next_member(self, rest: bytes) -> bytes:
        """What follows the end of a gzip member: another one, or padding that nobody reads."""
        if not rest.startswith(b"\x1f\x8b"):
            return b""
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise zlib.error("too many gzip members")
        self._stream = zlib.decompressobj(47)
        return rest


class Answer:
    """One answer, read from the bytes of a connection; knows no network. `finished` says that nothing more is to be read."""

    def __init__(self, max_bytes: int, accept: Accept | None) -> None:
        self.head = b""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.truncated: Truncated | None = None
        self.refused = ""
        self.finished = False
        self.reusable = False
        """The connection may serve another request."""
        self.started = False
        """A first byte came."""
        self._max_bytes = max_bytes
        self._accept = accept
        self._buffer = bytearray()
        self._interim = 0
        self._size = 0
        self._quiet = 0
        self._body: list[bytes] = []
        self._inflater: Inflater | None = None
        self._parser: Any = None

    @property
    def body(self) -> bytes:
        return b"".join(self._body)

    def decoded(self, body: bytes) -> bytes:
        """The body with Content-Encoding undone."""
        if self._inflater is not None:
            return b"".join(self._inflater.output)
        return b"" if self.refused == "encoding" else body

    def feed(self, data: bytes) -> None:
        """Takes bytes as they come. Raises DownloadError(protocol)."""
        self.started = True
        if not self.head:
            self._buffer += data
            data = self._read_head()
        if data and not self.finished:
            self._read_body(data)
        elif data:
            self.reusable = False

    def _read_head(self) -> bytes:
        """Looks for a whole head in the buffer; gives what follows it."""
        while True:
            while self._buffer[:1] in (b"\r", b"\n"):
                del self._buffer[:1]
            if not b"HTTP/".startswith(self._buffer[:5]):
                raise DownloadError("protocol", "not an HTTP answer")
            end = _END_OF_HEAD.search(self._buffer, 0, MAX_HEAD)
            if end is None:
                if len(self._buffer) >= MAX_HEAD:
                    raise DownloadError("protocol", "the head of the answer is too large")
                return b""
            head = bytes(self._buffer[: end.end()])
            del self._buffer[: end.end()]
            self._parse_head(head)
            if self.head:
                return bytes(self._buffer)

    def _parse_head(self, head: bytes) -> None:
        self.headers = []
        self.reusable = self.finished = False
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        self._parse(head)
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self.head = head
            self._judge()
            return
        self._interim += 1
        if self.status == 101 or self._interim > MAX_INTERIM:
            raise DownloadError("protocol", "an interim answer that nobody asked for")

    def _judge(self) -> None:
        """Whether the body is wanted, from the head alone."""
        kind = _essence(self.headers)
        encoding = _header(self.headers, b"content-encoding").strip().lower()
        declared = _header(self.headers, b"content-length")
        if self._accept is not None and not self._accept(self.status, kind):
            self._refuse("type")
        elif declared.isdecimal() and int(declared) > self._max_bytes and not _useful_in_part(kind):
            self._refuse("size")
        elif encoding in ("gzip", "x-gzip", "deflate"):
            self._inflater = Inflater(self._max_bytes, deflate=encoding == "deflate")
        elif encoding not in ("", "identity", "none"):
            self.refused = "encoding"

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self.finished = True

    def _read_body(self, data: bytes) -> None:
        self._quiet += len(data)
        self._parse(data)
        if not self.finished and self._quiet > 4 * MAX_HEAD:
            raise DownloadError("protocol", "an endless trailer or chunk header")

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.finished:
                raise DownloadError("protocol", str(error)) from error
            self.reusable = False

    def end(self, *, reset: bool) -> None:
        """The other side closed the connection, orderly or by a reset. Raises DownloadError(disconnected) when no head came."""
        if not self.head:
            raise DownloadError("disconnected", "the connection was closed before an answer came")
        if not self.finished and (reset or self._framed()):
            self.truncated = "disconnect"
        self.finished = True

    def _framed(self) -> bool:
        return any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    # --- called by the parser

    def on_message_begin(self) -> None:
        self.reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head:
            self.headers.append((name.lower(), value))

    def on_body(self, data: bytes) -> None:
        self._quiet = 0
        if self.finished:
            return
        room = self._max_bytes - self._size
        kept = data[:room]
        unneeded = self._inflate(kept)
        if unneeded is not None:
            kept = kept[: len(kept) - unneeded]
        self._body.append(kept)
        self._size += len(kept)
        if unneeded is not None or len(data) > room:
            self.truncated = "length"
            self.finished = True

    def _inflate(self, data: bytes) -> int | None:
        if self._inflater is None:
            return None
        try:
            return self._inflater.feed(data)
        except zlib.error:
            self._inflater = None
            self.refused = "encoding"
            return None

    def on_message_complete(self) -> None:
        if not self.finished:
            self.finished = True
            self.reusable = bool(self._parser.should_keep_alive())


def _useful_in_part(content_type: str) -> bool:
    """Text is kept up to the limit; half a picture is of no use to anybody."""
    return content_type.startswith("text/") or content_type in ("", "application/xhtml+xml")


class Connection(asyncio.Protocol):
    """A connection that serves one request at a time."""

    def __init__(self) -> None:
        self.ip = ""
        self.idle: asyncio.TimerHandle | None = None
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._done: asyncio.Future[None] | None = None

    async def ask(self, request_head: bytes, answer: Answer, deadline: float) -> float:
        """Sends a request and reads its answer until `deadline` (monotonic); gives when it was sent.

        Raises DownloadError; `sent_at` is set on it.
        """
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        self._answer, self._done = answer, loop.create_future()
        sent_at = time.monotonic()
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
        return sent_at

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
    ) -> Exchange:
        """GETs a normalised URL.

        Args:
            headers: instead of or beside Accept and Accept-Encoding.
            timeout: seconds for everything; an answer that is under way is then cut and kept.
            max_bytes: of the body, as received and as decoded; text is cut there, other types that declare more are refused.
            accept: asked with status and media type when the head is there; False = do not read the body.

        Raises:
            AddressRefused: the host has no address that may be dialled.
            DownloadError: no answer.
        """
        deadline = time.monotonic() + timeout
        head = request_head(url, headers)
        key = (url.partition(":")[0], *host_port(url))
        connection = self._pools[key].take() if key in self._pools else None
        if connection is not None:
            answer = Answer(max_bytes, accept)
            try:
                return await self._exchange(url, key, connection, head, answer, deadline)
            except DownloadError as error:
                if answer.started or error.reason == "timeout":
                    raise
        connection = await self._connect(key, deadline)
        return await self._exchange(url, key, connection, head, Answer(max_bytes, accept), deadline)

    async def _exchange(
        self, url: str, key: tuple[str, str, int], connection: Connection, head: bytes, answer: Answer, deadline: float
    ) -> Exchange:
        at = datetime.now(UTC)
        sent_at = await connection.ask(head, answer, deadline)
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
    """Scrapy's download handler. From request.meta: `address` (the URL, byte by byte), `timeout`, `max_bytes`, `accept`."""

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
        )
        response = ExchangeResponse(request.url, status=exchange.status, body=exchange.decoded)
        response.exchange = exchange
        return response

    async def close(self) -> None:
        await self._client.close()
