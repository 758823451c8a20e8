"""Pieces of artifacts: written by the crawler, stored as objects of their own, joined at the end of a cycle.

A segment is a local file that only grows, by whole members: TAR members (`tar`), WARC records (`warc`). Segments put one after
the other (a TAR's with its `TRAILER`, once) are the artifact. `csvlog` writes the logs, whole.
"""

from __future__ import annotations

from typing import NamedTuple


class Pointer(NamedTuple):
    """Where something is within a segment, in bytes."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        return self.offset + self.length
