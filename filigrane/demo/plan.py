"""What the little web holds: what to register, what has to be found where, and what must not be found or fetched."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Original:
    """A picture of the owner. A watermarked one is shown only in its marked form."""

    name: str
    file: Path
    marked: Path | None = None
    """The marked picture, PNG."""
    registration: Path | None = None
    """The bytes that `mark` gave with it (.lmk)."""

    @property
    def watermarked(self) -> bool:
        return self.marked is not None


@dataclass(frozen=True, order=True)
class Place:
    """A path on one of the sites; `site` is a host of the plan, not an address."""

    site: str
    path: str


@dataclass(frozen=True)
class Planted:
    """An altered copy: one file, and the pages that show it."""

    file: Place
    original: str
    alteration: str
    watermarked: bool
    pages: tuple[Place, ...]


@dataclass(frozen=True)
class Decoy:
    """A picture that only looks like a registered one."""

    file: Place
    what: str
    pages: tuple[Place, ...]


@dataclass(frozen=True)
class Plan:
    folder: Path
    """One folder per host, with its files as they are served."""
    hosts: tuple[str, ...]
    """All that answer: the sites and the image host."""
    sites: tuple[str, ...]
    """Those that are to be crawled, from `/` on."""
    titles: dict[str, str]
    originals: tuple[Original, ...]
    planted: tuple[Planted, ...]
    decoys: tuple[Decoy, ...]
    forbidden: tuple[Place, ...]
    """What robots.txt forbids; a copy of a registered picture among it."""
    broken: tuple[Place, ...]
    """Pictures whose bytes are no picture."""
    missing: tuple[Place, ...]
    """Linked or shown, and not there."""
    redirects: dict[Place, Place] = field(default_factory=dict)
