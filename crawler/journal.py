"""What a cycle did, record by record: the pieces that are stored, and the worker's local file that comes before them.

A record is written once, for an answer or a decision, and numbered within its (session, cycle). A *piece* is the records between two
closings, stored as one object: zstd over msgpack. The local journal is one file per worker for all its sessions, framed with length and
CRC-32, so that a torn tail is seen and cut (docs/adr/0001).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import zstandard

from core.errors import Corrupt, Unavailable


class Pointer(msgspec.Struct, frozen=True, array_like=True):
    """`length` bytes from `offset` on in the cycle's segment `seq`: a picture in a TAR, a request and response in a WARC."""

    seq: int
    offset: int
    length: int


class Page(msgspec.Struct, frozen=True, tag="page", omit_defaults=True):
    """One request for a page (a redirect's hop and robots.txt are requests too) and what its answer showed."""

    url: str
    referrer: str
    depth: int
    outcome: str
    """fetched | truncated | refused | failed"""
    at: float
    """Unix time of the request."""
    elapsed: float
    """Seconds of crawling in this cycle until then."""
    status: int | None = None
    content_type: str = ""
    bytes: int | None = None
    sha256: str = ""
    etag: str = ""
    last_modified: str = ""
    reason: str = ""
    warc: Pointer | None = None
    redirect: str = ""
    """Where a hop leads, when that is to be fetched as a page."""
    hops: int = 0
    """Redirects that led here."""
    robots: bool = False
    """A robots.txt: evidence, not a page of the site."""
    links: tuple[str, ...] = ()
    images: tuple[tuple[str, str], ...] = ()
    """(URL, alt)"""
    videos: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    """(URL, reason) of links that are never requested."""
    retry: bool = False
    """No answer came, and the page will be asked for once more."""


class Image(msgspec.Struct, frozen=True, tag="image", omit_defaults=True):
    """One image URL: fetched, or not and why. `page_url` and `alt` are those of the sighting that led to it."""

    url: str
    page_url: str
    outcome: str
    """fetched | refused | failed"""
    at: float
    elapsed: float
    alt: str = ""
    status: int | None = None
    content_type: str = ""
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    md5: str = ""
    sha256: str = ""
    last_modified: str = ""
    credit: str = ""
    reason: str = ""
    tar: Pointer | None = None
    also: tuple[tuple[str, str], ...] = ()
    """(page URL, alt) of further sightings in the cycle before, which did not come to ask for it."""


class Skip(msgspec.Struct, frozen=True, tag="skip"):
    """A URL that was in the frontier and is not requested in this cycle."""

    url: str
    page_url: str
    reason: str
    image: bool = False


Record = Page | Image | Skip


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A record in the worker's local file."""

    session: int
    cycle: int
    epoch: int
    number: int
    record: Record


class Piece(msgspec.Struct, frozen=True):
    """Consecutive records of one cycle, the first numbered `first`."""

    first: int
    records: tuple[Record, ...]
    v: int = 1


_piece_encoder = msgspec.msgpack.Encoder()
_piece_decoder = msgspec.msgpack.Decoder(Piece)
_entry_encoder = msgspec.msgpack.Encoder()
_entry_decoder = msgspec.msgpack.Decoder(Entry)
_MAX_PIECE: Final = 1 << 30


def encode_piece(piece: Piece) -> bytes:
    """The bytes of a journal segment."""
    return zstandard.compress(_piece_encoder.encode(piece), 3)


def decode_piece(data: bytes) -> Piece:
    """The piece in a journal segment. Raises Corrupt."""
    try:
        return _piece_decoder.decode(zstandard.decompress(data, max_output_size=_MAX_PIECE))
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise Corrupt(f"a journal piece cannot be read: {error}") from error


_FRAME: Final = struct.Struct("<II")


def read_entries(stream: BinaryIO) -> Iterator[Entry]:
    """The whole entries of a local journal, up to the first torn or damaged one."""
    while len(head := stream.read(_FRAME.size)) == _FRAME.size:
        length, crc = _FRAME.unpack(head)
        if not length:  # the room that was reserved and not used
            return
        data = stream.read(length)
        if len(data) < length or zlib.crc32(data) != crc:
            return
        try:
            yield _entry_decoder.decode(data)
        except msgspec.MsgspecError:
            return


class Journal:
    """The worker's local journal: numbered files in a folder, the newest one is written to.

    `left` is what an earlier process left: entries by (session, cycle), in order, each number once (the newest).
    A file is deleted when all its records are *covered*: stored in pieces, or of no use any more.
    """

    FILE_BYTES: Final = 64 << 20
    """A longer file is left for a new one."""
    STEP: Final = 1 << 20
    """Room is taken from the disk in such pieces."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._last: dict[int, dict[tuple[int, int], int]] = {}
        self.left = self._read_left()
        self._number = max(self._last, default=0)
        self._file = self._roll()
        self._end = self._room = 0

    def reserve(self, room: int = STEP) -> None:
        """Makes sure that records of so many bytes fit, before what they point to is written. Raises Unavailable: the disk is full."""
        if self._end > self.FILE_BYTES:
            self.sync()
            full, self._file = self._file, self._roll()
            _close(full, self._end)
            self._end = self._room = 0
        if self._end + room > self._room:
            self._grow(max(room, self.STEP))

    def append(self, entry: Entry) -> None:
        """Writes the entry, whole or not at all; `sync` makes it durable. Raises Unavailable: the disk is full."""
        data = _entry_encoder.encode(entry)
        frame = _FRAME.pack(len(data), zlib.crc32(data)) + data
        self.reserve(len(frame))
        self._file.write(frame)
        self._end += len(frame)
        self._last[self._number][entry.session, entry.cycle] = entry.number

    def sync(self) -> None:
        os.fdatasync(self._file.fileno())

    def cover(self, session: int, cycle: int, number: float = float("inf")) -> None:
        """Records of the cycle up to `number` need no local copy any more."""
        for file, last in list(self._last.items()):
            if last.get((session, cycle), float("inf")) <= number or number == float("inf"):
                last.pop((session, cycle), None)
            if not last and file != self._number:
                self._path(file).unlink(missing_ok=True)
                del self._last[file]

    def close(self) -> None:
        """Gives back the room that was not used, and the file that nobody needs."""
        _close(self._file, self._end)
        if not self._last[self._number]:
            self._path(self._number).unlink(missing_ok=True)

    def _read_left(self) -> dict[tuple[int, int], list[Entry]]:
        found: dict[tuple[int, int], list[Entry]] = {}
        for path in sorted(self._folder.glob("journal.*"), key=lambda path: int(path.suffix[1:])):
            last = self._last[int(path.suffix[1:])] = {}
            with path.open("rb") as stream:
                for entry in read_entries(stream):
                    entries = found.setdefault((entry.session, entry.cycle), [])
                    # numbers that begin anew: what was there from this one on was given up, and its segments with it
                    while entries and entries[-1].number >= entry.number:
                        entries.pop()
                    entries.append(entry)
                    last[entry.session, entry.cycle] = entry.number
            if not last:
                path.unlink()
                del self._last[int(path.suffix[1:])]
        return found

    def _roll(self) -> FileIO:
        try:
            file = FileIO(self._path(self._number + 1), "x")
        except OSError as error:
            raise _no_room(error) from error
        self._number += 1
        self._last[self._number] = {}
        return file

    def _grow(self, room: int) -> None:
        """Room is reserved, so that writing to it cannot fail half-way."""
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), self._end, room)
        except OSError as error:
            raise _no_room(error) from error
        self._room = self._end + room

    def _path(self, number: int) -> Path:
        return self._folder / f"journal.{number}"


def _close(file: FileIO, end: int) -> None:
    with file:
        file.truncate(end)


def _no_room(error: OSError) -> Unavailable:
    return Unavailable(f"no room for the crawler's journal: {error.strerror}", code="disk_full", retry_after=5)


def counted(records: Iterable[Record], stored: Iterable[tuple[str, int]]) -> Iterator[Record]:
    """Those whose segments are stored: `stored` holds (kind, seq)."""
    known = set(stored)
    for record in records:
        if isinstance(record, Page) and record.warc and ("warc", record.warc.seq) not in known:
            continue
        if isinstance(record, Image) and record.tar and ("tar", record.tar.seq) not in known:
            continue
        yield record
