"""An index as one file: a header, segments, whole fingerprints, and at the end a table of where everything is. It is mapped, not read."""

from __future__ import annotations

import mmap
import os
import secrets
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Generic

import msgspec
import numpy as np

from matcher.copies import segment_file
from matcher.copies.names import Id, Names
from matcher.copies.parts import I64, Part
from matcher.copies.prints import Opened, Prints
from matcher.copies.segment import DEAD
from matcher.copies.segment_file import SegmentInvalid

_MAGIC: Final = b"FGI2"
_HEADER: Final = struct.Struct("<4sIQQ")
_ROOM: Final = 64


class SnapshotInvalid(ValueError):
    """The file is no snapshot of an index that this program reads: of another version, cut or damaged."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot(Generic[Id]):
    """What an index is made of; `looks`: `LookIndex.to_bytes`."""

    parts: Sequence[Part[Id]]
    prints: Prints
    looks: bytes


class _PartTable(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    start: int
    length: int
    ids: list[Any]
    stamps: bytes
    groups: bytes


class _Table(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    parts: list[_PartTable]
    stamps: bytes
    starts: bytes
    lengths: bytes
    crc: int
    looks: tuple[int, int]


def write(snapshot: Snapshot[Id], path: Path, *, prints: bool = True) -> None:
    """The file is there whole or not at all; without `prints` only what candidates need. Raises OSError."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("wb") as file:
            file.write(bytes(_ROOM))
            table = _write_body(snapshot, file, prints=prints)
            start = file.tell()
            file.write(table)
            header = _HEADER.pack(_MAGIC, zlib.crc32(table), start, len(table))
            file.seek(0)
            file.write(header + zlib.crc32(header).to_bytes(4, "little"))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write_body(snapshot: Snapshot[Id], file: IO[bytes], *, prints: bool) -> bytes:
    """Everything between header and table; returns the table."""
    rows, crc = [], 0
    for stamp in sorted(stamp for part in snapshot.parts for stamp in part.stamps[part.groups != DEAD].tolist()) if prints else ():
        try:
            data = snapshot.prints.read(stamp)
        except KeyError:  # removed since
            continue
        rows.append((stamp, file.tell(), len(data)))
        crc = zlib.crc32(data, crc)
        file.write(data)
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    parts = [_write_part(part, columns[0] if prints else part.stamps, file) for part in snapshot.parts]
    stamps, starts, lengths = (column.astype("<i8").tobytes() for column in columns)
    looks = file.tell(), len(snapshot.looks)
    file.write(snapshot.looks)
    return msgspec.msgpack.encode(_Table(parts, stamps, starts, lengths, crc, looks))


def _write_part(part: Part[Id], alive: I64, file: IO[bytes]) -> _PartTable:
    file.write(bytes(-file.tell() % _ROOM))
    start = file.tell()
    for piece in segment_file.parts(part.segment):
        file.write(piece)
    groups = np.where(np.isin(part.stamps, alive), part.groups, np.uint32(DEAD))
    return _PartTable(start, file.tell() - start, list(part.ids), part.stamps.astype("<i8").tobytes(), groups.astype("<u4").tobytes())


def read(path: Path, folder: Path | None = None, *, verify: bool = True) -> Snapshot[Any]:
    """What `write` wrote. `folder` is for the fingerprints that are added. Raises OSError, SnapshotInvalid."""
    file = Opened(os.open(path, os.O_RDONLY))
    try:
        return _read(file, folder, verify=verify)
    except (SegmentInvalid, msgspec.MsgspecError) as error:
        raise SnapshotInvalid(f"the index cannot be read: {error}") from error


def _read(file: Opened, folder: Path | None, *, verify: bool) -> Snapshot[Any]:
    size = os.fstat(file.descriptor).st_size
    if size < _ROOM:
        raise SnapshotInvalid("not an index, or cut")
    data = memoryview(mmap.mmap(file.descriptor, 0, access=mmap.ACCESS_READ))
    start, length = _header(bytes(data[: _HEADER.size + 4]), data)
    table = msgspec.msgpack.decode(data[start : start + length], type=_Table)
    parts = [_part(row, data, verify=verify) for row in table.parts]
    stamps, starts, lengths = (np.frombuffer(column, "<i8") for column in (table.stamps, table.starts, table.lengths))
    if verify and _checksum(data, starts.tolist(), lengths.tolist()) != table.crc:
        raise SnapshotInvalid("the fingerprints' checksum does not fit")
    begin = 1 + max((int(part.stamps[-1]) for part in parts if len(part.stamps)), default=-1)
    prints = Prints.stored(file, stamps.tolist(), starts.tolist(), lengths.tolist(), folder, begin=begin)
    return Snapshot(parts, prints, bytes(data[table.looks[0] : sum(table.looks)]))


def _header(header: bytes, data: memoryview) -> tuple[int, int]:
    """Where the table begins and how long it is."""
    if header[:4] != _MAGIC:
        raise SnapshotInvalid("not an index, or one of another version")
    if zlib.crc32(header[: _HEADER.size]).to_bytes(4, "little") != header[_HEADER.size :]:
        raise SnapshotInvalid("the index' header is damaged")
    _, crc, start, length = _HEADER.unpack(header[: _HEADER.size])
    if start + length != len(data) or zlib.crc32(data[start:]) != crc:
        raise SnapshotInvalid("the index is cut, or its table damaged")
    return start, length


def _part(row: _PartTable, data: memoryview, *, verify: bool) -> Part[Any]:
    segment = segment_file.from_bytes(data[row.start : row.start + row.length], verify=verify)
    stamps, groups = np.frombuffer(row.stamps, "<i8"), np.frombuffer(row.groups, "<u4").copy()
    ids = [tuple(id_) if isinstance(id_, list) else id_ for id_ in row.ids]
    if not len(ids) == len(stamps) == len(groups) == segment.pictures:
        raise SnapshotInvalid("the index' tables do not fit together")
    return Part(segment, Names(ids), stamps, groups)


def _checksum(data: memoryview, starts: Sequence[int], lengths: Sequence[int]) -> int:
    crc = 0
    for start, length in zip(starts, lengths, strict=True):
        crc = zlib.crc32(data[start : start + length], crc)
    return crc
