"""WARC segments: WARC/1.1 (ISO 28500:2017), one gzip member per record, a warcinfo first.

An exchange is two records that stand together, the request and then its response (or revisit); both are written at once, and a segment
is cut between exchanges, never within one. Segments one after the other are one file that every WARC reader takes.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Literal, NamedTuple
from urllib.parse import quote
from uuid import uuid4

from core.errors import InvalidInput
from core.segments import Pointer
from core.segments.file import SegmentFile

Truncated = Literal["length", "time", "disconnect", "unspecified"]

LEVEL: Final = 1
"""Of gzip: 6 writes a page 15 % smaller for 2.5 times the CPU, which is most of what a crawl of static pages spends."""
_PIECE: Final = 1 << 13
"""Bytes read at once; deflate can make a thousand times as many of them."""
_FIELDS_KEPT: Final = 1 << 14
_PROFILES: Final = "http://netpreserve.org/warc/1.1/revisit/"
_CONFORMS_TO: Final = "http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_HEAD_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_VISIBLE: Final = re.compile(rb"[!-~]")
_URI_SAFE: Final = "!#$%&'()*+,/:;=?@[]|~"
_FRAMING: Final = (b"content-length", b"transfer-encoding")


class Record(NamedTuple):
    """A record's fields (names in lower case) and its gzip member within the segment."""

    fields: Mapping[str, str]
    member: Pointer


class WarcSegment(SegmentFile):
    """A segment of pages.warc that grows by whole exchanges."""

    def __init__(self, path: Path, software: str, fields: Mapping[str, str] | None = None, *, level: int = LEVEL) -> None:
        """Opens the segment; an empty one gets its warcinfo.

        Args:
            software: name and version, for the warcinfo.
            fields: what else the warcinfo says, such as `robots` or `http-header-user-agent`.
            level: of gzip, 1 (quick) to 9 (small).
        """
        super().__init__(path)
        self._level = level
        if not self.size:
            block = _lines({"software": software, "format": "WARC File Format 1.1", "conformsTo": _CONFORMS_TO, **(fields or {})})
            info = {"WARC-Type": "warcinfo", "WARC-Date": _date(datetime.now(UTC)), "Content-Type": "application/warc-fields"}
            self.append([self._record(_id(), info, block)])

    def add_exchange(
        self,
        url: str,
        date: datetime,
        request_head: bytes,
        response_head: bytes,
        body: bytes,
        *,
        truncated: Truncated | None = None,
        ip: str | None = None,
    ) -> Pointer:
        """Appends a request and its response.

        Args:
            url: http or https.
            date: when the request was sent; not naive.
            request_head, response_head: first line and header lines as they went over the wire, with or without the empty line.
            body: as received, Transfer-Encoding undone, Content-Encoding not. Where the head's framing does not fit it (chunked,
                or cut), the head gets the right Content-Length and keeps the received framing under `X-Archive-Orig-`.
            truncated: why the body is not whole.
            ip: the address dialled.

        Returns:
            Where both records together are in this segment.

        Raises:
            InvalidInput: not an http URL ("bad_url"), or a naive date ("naive_date").
            Unavailable: see `append`.
        """
        fields = {"WARC-Type": "response", "WARC-Payload-Digest": _digest(body), **_optional({"WARC-Truncated": truncated})}
        return self._exchange(url, date, request_head, fields, _head(response_head, len(body)) + body, ip)

    def add_revisit(
        self,
        url: str,
        date: datetime,
        request_head: bytes,
        response_head: bytes,
        body: bytes | None,
        *,
        refers_to_url: str | None = None,
        refers_to_date: datetime | None = None,
        ip: str | None = None,
    ) -> Pointer:
        """Appends a request and a revisit: an answer whose body is in an earlier record and not stored again.

        Args:
            body: the answer's body, identical to the earlier one (only its digest is written); none where the server answered 304.
            refers_to_url, refers_to_date: the earlier record's.

        Returns, Raises, other arguments: see `add_exchange`.
        """
        profile = "server-not-modified" if body is None else "identical-payload-digest"
        known = {
            "WARC-Payload-Digest": None if body is None else _digest(body),
            "WARC-Refers-To-Target-URI": None if refers_to_url is None else _uri(refers_to_url),
            "WARC-Refers-To-Date": None if refers_to_date is None else _date(refers_to_date),
        }
        fields = {"WARC-Type": "revisit", "WARC-Profile": _PROFILES + profile, **_optional(known)}
        return self._exchange(url, date, request_head, fields, _head(response_head, None), ip)

    def _exchange(self, url: str, date: datetime, request_head: bytes, fields: dict[str, str], block: bytes, ip: str | None) -> Pointer:
        common = {"WARC-Target-URI": _http_uri(url), "WARC-Date": _date(date), **_optional({"WARC-IP-Address": ip})}
        ours, theirs = _id(), _id()
        asked = {"WARC-Type": "request", "WARC-Concurrent-To": theirs, **common, "Content-Type": "application/http; msgtype=request"}
        answered = {**fields, "WARC-Concurrent-To": ours, **common, "Content-Type": "application/http; msgtype=response"}
        pieces = [self._record(ours, asked, _head(request_head, None)), self._record(theirs, answered, block)]
        return Pointer(self.append(pieces), sum(map(len, pieces)))

    def _record(self, record_id: str, fields: Mapping[str, str], block: bytes) -> bytes:
        last = {"WARC-Block-Digest": _digest(block), "Content-Length": str(len(block))}
        head = b"WARC/1.1\r\n" + _lines({"WARC-Record-ID": record_id, **fields, **last}) + b"\r\n"
        gzip = zlib.compressobj(self._level, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        return gzip.compress(head) + gzip.compress(block) + gzip.compress(b"\r\n\r\n") + gzip.flush()


def records(stream: BinaryIO) -> Iterator[Record]:
    """The records of a segment or an artifact of ours, up to the first that is not whole; bodies are checked (CRC-32), not kept."""
    start = stream.tell()
    rest = b""
    while True:
        head, length, rest = _gunzip_member(stream, rest)
        if head is None:
            return
        yield Record(_fields(head), Pointer(start, length))
        start += length


def cut(path: Path, length: int) -> int:
    """Truncates a segment to its last whole exchange that ends within `length` bytes (the end of the last one that is known).

    Returns:
        The size of the file now; 0 for a file that is not there.
    """
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        ends = [record.member.end for record in records(file) if record.fields.get("warc-type") != "request"]
        size = max((end for end in ends if end <= length), default=0)
        file.truncate(size)
        os.fsync(file.fileno())
    return size


def _gunzip_member(stream: BinaryIO, data: bytes) -> tuple[bytes | None, int, bytes]:
    """The beginning of what is in the next gzip member (None: it is not whole), the member's length, what was read behind it."""
    gunzip = zlib.decompressobj(16 + zlib.MAX_WBITS)
    head, length = b"", 0
    while True:
        data = data or stream.read(_PIECE)
        if not data:
            return None, 0, b""
        try:
            out = gunzip.decompress(data)
        except zlib.error:
            return None, 0, b""
        head += out[: _FIELDS_KEPT - len(head)]
        length += len(data) - len(gunzip.unused_data)
        data = gunzip.unused_data
        if gunzip.eof:
            return head, length, data


def _fields(head: bytes) -> dict[str, str]:
    lines = head.partition(b"\r\n\r\n")[0].decode("utf-8", "replace").split("\r\n")[1:]
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _lines(fields: Mapping[str, str]) -> bytes:
    """Header lines. The one place where values become lines: no value can begin a line of its own."""
    text = "".join(f"{_CONTROL.sub(' ', name)}: {_CONTROL.sub(' ', value)}\r\n" for name, value in fields.items())
    return text.encode("utf-8", "replace")


def _optional(fields: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


def _head(head: bytes, length: int | None) -> bytes:
    """The head of an HTTP message with one kind of line end, and the empty line; with a length, its framing fits a body of that length."""
    # Readers differ in which characters make a line that looks empty; a line without a visible one is dropped.
    lines = [line for line in _HEAD_CONTROL.sub(b" ", head.replace(b"\r\n", b"\n")).split(b"\n") if _VISIBLE.search(line)]
    framing = [line for line in lines[1:] if _name(line) in _FRAMING]
    if length is not None and framing and framing != [b"Content-Length: %d" % length]:
        kept = [b"X-Archive-Orig-" + line if line in framing else line for line in lines[1:]]
        lines = [*lines[:1], *kept, b"Content-Length: %d" % length]
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def _name(line: bytes) -> bytes:
    return line.partition(b":")[0].strip().lower()


def _uri(url: str) -> str:
    return quote(url, safe=_URI_SAFE, errors="surrogatepass")


def _http_uri(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise InvalidInput(f"not an http URL: {url[:100]!r}", code="bad_url")
    return _uri(url)


def _date(date: datetime) -> str:
    if date.tzinfo is None:
        raise InvalidInput("a naive date; use UTC", code="naive_date")
    return date.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _id() -> str:
    return f"<urn:uuid:{uuid4()}>"


def _digest(data: bytes) -> str:
    return "sha256:" + base64.b32encode(hashlib.sha256(data).digest()).decode()
