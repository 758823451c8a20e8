"""The open segments of a cycle: pictures go to a TAR, exchanges to a WARC, each a local file until it is closed and stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from core.imageinfo import extension
from core.segments.tar import TarSegment
from core.segments.warc import WarcSegment
from crawler.exchange import Exchange
from crawler.journal import Pointer
from crawler.publish import LocalSegment

SEGMENT_BYTES: Final = 8 << 20
WARC_PATIENCE: Final = 6
"""A WARC segment stays open this many times as long as a TAR segment."""


class OpenSegments:
    """At most one of each kind. `next_seq` gives the number of the next one, and is raised when it closes; `path` where its file is."""

    def __init__(
        self,
        next_seq: dict[str, int],
        path: Callable[[str, int], Path],
        *,
        software: str,
        seconds: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._next_seq = next_seq
        self._path = path
        self._software = software
        self._seconds = seconds
        self._monotonic = monotonic
        self._tar: TarSegment | None = None
        self._warc: WarcSegment | None = None
        self._tar_opened = self._warc_opened = 0.0
        self._kept: dict[str, Pointer] = {}
        """What is in the open TAR segment, also when the disk was full before its record could be written."""

    def archive(self, address: str, exchange: Exchange) -> Pointer:
        """Writes request and answer to the WARC."""
        if self._warc is None:
            self._warc = WarcSegment(self._path("warc", self._next_seq["warc"]), software=self._software)
            self._warc_opened = self._monotonic()
        offset, length = self._warc.add_exchange(
            address,
            exchange.at,
            exchange.request_head,
            exchange.response_head,
            exchange.body,
            truncated=exchange.truncated,
            ip=exchange.ip,
        )
        return Pointer(self._next_seq["warc"], offset, length)

    def keep(self, sha256: str, data: bytes, kind: str, at: float) -> Pointer:
        """Writes a picture to the TAR, once."""
        if sha256 in self._kept:
            return self._kept[sha256]
        if self._tar is None:
            self._tar = TarSegment(self._path("tar", self._next_seq["tar"]))
            self._tar_opened = self._monotonic()
        offset, length = self._tar.add(f"{sha256}.{extension(kind)}", data, int(at))
        self._kept[sha256] = Pointer(self._next_seq["tar"], offset, length)
        return self._kept[sha256]

    def sync(self) -> None:
        """Makes them durable."""
        for segment in (self._tar, self._warc):
            if segment is not None:
                segment.sync()

    def due(self) -> bool:
        """Whether one is full or has been open long enough; a cycle's first picture closes at once."""
        if self._tar is not None:
            age = self._monotonic() - self._tar_opened
            if self._tar.size >= SEGMENT_BYTES or age >= self._seconds or self._next_seq["tar"] == 0:
                return True
        return self.warc_due()

    def warc_due(self) -> bool:
        if self._warc is None:
            return False
        return self._warc.size >= SEGMENT_BYTES or self._monotonic() - self._warc_opened >= WARC_PATIENCE * self._seconds

    def has_warc(self) -> bool:
        return self._warc is not None

    def close(self, *, with_warc: bool) -> tuple[LocalSegment, ...]:
        """Closes the TAR, and the WARC when told to; what closed is to be stored."""
        closed = []
        if self._tar is not None:
            closed.append(self._close("tar", self._tar))
            self._tar, self._kept = None, {}
        if self._warc is not None and with_warc:
            closed.append(self._close("warc", self._warc))
            self._warc = None
        return tuple(closed)

    def _close(self, kind: str, segment: TarSegment | WarcSegment) -> LocalSegment:
        segment.close()
        seq = self._next_seq[kind]
        self._next_seq[kind] = seq + 1
        return LocalSegment(kind, seq, self._path(kind, seq))

    def drop(self) -> None:
        """Nothing of them counts."""
        for segment in (self._tar, self._warc):
            if segment is not None:
                segment.close()
        self._tar = self._warc = None
