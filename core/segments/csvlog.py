"""The logs of a batch: gzipped CSV with a header line, UTF-8, RFC 4180.

Values are written as they are: text beginning with `=`, `+`, `-` or `@` is not disarmed, since these are records of what stood on
a page; who opens a log in a spreadsheet should import its columns as text. NUL, which CSV readers refuse, becomes U+FFFD.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

Value = str | int | float | datetime | None

_SEEN: Final = ("url", "page_url", "status", "content_type", "width", "height", "bytes", "md5", "sha256")
IMAGES: Final = (*_SEEN, "last_modified", "alt", "credit", "offset", "crawled_at", "outcome", "reason")
VIDEOS: Final = IMAGES
"""The same columns: width, height and offset are empty where unknown."""
DOCUMENTS: Final = IMAGES
PAGES: Final = (
    "url", "referrer", "depth", "status", "content_type", "bytes", "sha256", "etag", "last_modified", "fetched_at", "outcome", "reason",
)  # fmt: skip
SKIPPED: Final = ("url", "page_url", "reason", "count")

_LEVEL: Final = 6


class CsvLog:
    """Writes one log to a file. The same rows make the same bytes."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        """Makes the file anew and writes the header line."""
        self.columns = tuple(columns)
        self._count = 0
        with ExitStack() as stack:
            file = stack.enter_context(path.open("wb"))
            packed = stack.enter_context(gzip.GzipFile("", "wb", _LEVEL, file, mtime=0))
            text = stack.enter_context(io.TextIOWrapper(packed, encoding="utf-8", errors="replace", newline="", write_through=False))
            self._writer = csv.writer(text, lineterminator="\r\n")
            self._writer.writerow(self.columns)
            self._stack = stack.pop_all()

    @property
    def count(self) -> int:
        """Rows written, without the header line."""
        return self._count

    def write(self, row: Mapping[str, Value]) -> None:
        """Adds a row; columns that it lacks are empty.

        Args:
            row: values by column; None is empty, dates are ISO 8601 in UTC.

        Raises:
            ValueError: a column that this log does not have, or a naive date.
        """
        if unknown := row.keys() - set(self.columns):
            raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
        self._writer.writerow([_text(row.get(column)) for column in self.columns])
        self._count += 1

    def close(self) -> None:
        """Ends the file; only then it is a whole gzip."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a naive datetime reached a log; use UTC")
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value).replace("\0", "\ufffd")
