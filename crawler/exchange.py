"""What was asked and what was answered, byte by byte: an exchange, and how it is read from the bytes of a connection, within limits."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import httptools

from core.errors import FiligraneError

MAX_HEAD: Final = 64 << 10
MAX_INTERIM: Final = 20
"""1xx answers before the real one."""
MAX_MEMBERS: Final = 1000
"""gzip members in one body."""

Reason = Literal["timeout", "dns", "unreachable", "tls", "protocol", "disconnected", "url", "header"]
Truncated = Literal["length", "time", "disconnect"]
Guard = Callable[[], bool]
"""Whether the request may still be sent."""
Accept = Callable[[int, str], bool]

_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")


class DownloadError(FiligraneError):
    """No answer came. `reason` is for pages.log; `sent_at` is when the request went out (monotonic), None if it never did."""

    default_code = "download_failed"

    def __init__(self, reason: Reason, details: str = "") -> None:
        super().__init__(details or reason)
        self.reason: Reason = reason
        self.sent_at: float | None = None


class NotSent(FiligraneError):
    """The request was held back at the last moment: nothing of it was written."""

    default_code = "not_sent"


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
    answered_at: float
    """When the answer's first byte came, time.monotonic()."""
    at: datetime
    """When the request was sent, UTC."""
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
            while self._buffer.startswith((b"\r", b"\n")):
                del self._buffer[:1]
            if not b"HTTP/".startswith(bytes(self._buffer[:5])):
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
        self.finished = self.reusable = False
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
        elif not self.finished and declared.isdecimal() and int(declared) > self._max_bytes and not _useful_in_part(kind):
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
