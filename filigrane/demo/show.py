"""What the demo prints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from api_shim.schemas import Batch
from core.models import Match
from filigrane.demo.plan import Planted
from filigrane.demo.report import Report, Sighting, evidence, sighting, smallest_gap
from filigrane.demo.server import Served

_LISTED: Final = 12
"""Missed or wrong sightings that are named."""
_KINDS: Final = ("pages", "images", "videos", "documents", "skipped")
_ARTIFACTS: Final = ("images.log", "images.tar", "pages.log", "pages.warc", "skipped.log")
_PICTURE_ROWS: Final = 14
_FONTS: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""They would be fetched from elsewhere by whoever looks at the picture."""


def heading(console: Console) -> None:
    console.print()
    console.print(_line(console, "picture", "what was done to it", "found by", "page"), style="bold")


def match(console: Console, served: Served, wanted: Mapping[Sighting, Planted], row: Match) -> None:
    """A line of the table that grows while the sites are crawled."""
    seen = sighting(row)
    planted = wanted.get(seen)
    page = served.place(row.page_url)
    where = f"{served.plan.titles.get(page.site, page.site)} {page.path}" if page else row.page_url
    line = _line(console, seen.original, planted.alteration if planted else "NOT PLANTED", evidence(row), where)
    console.print(line, style=("green" if row.watermarked else "") if planted else "red")


def _line(console: Console, *cells: str) -> Table:
    """The last column takes what is left of the terminal's width."""
    row = Table.grid(padding=(0, 2))
    for width in (13, 25, 18, max(console.width - 62, 12)):
        row.add_column(width=width, no_wrap=True, overflow="ellipsis")
    row.add_row(*cells)
    return row


def summary(console: Console, served: Served, report: Report, seconds: float, delay: float) -> None:
    plan, requests = served.plan, served.requests
    table = Table.grid(padding=(0, 3))
    table.add_row("planted copies found", f"{report.found} of {report.planted} (one for each file and page)")
    table.add_row("decoys matched", f"{report.decoys_matched} of {len(plan.decoys)}")
    table.add_row("what robots.txt forbids", f"{len(report.trespassed)} requests" if report.trespassed else "not fetched")
    table.add_row("requests", f"{len(requests)}; closest to one host {smallest_gap(requests) * 1000:.0f} ms (delay {delay * 1000:.0f} ms)")
    table.add_row("seconds", f"{seconds:.0f}, from nothing to here")
    console.print()
    console.print(table)
    for title, sightings in (("missed", report.missed), ("matched and not planted", report.wrong)):
        for each in sightings[:_LISTED]:
            console.print(f"{title}: {each.original}, {each.file} on {each.page}", style="red", soft_wrap=True)
        if len(sightings) > _LISTED:
            console.print(f"{title}: {len(sightings) - _LISTED} more", style="red")


def where_to_look(console: Console, url: str, token: str, batches: Iterable[tuple[str, Batch]]) -> None:
    console.print("\nWhere to look", style="bold")
    console.print(f'  curl -H "Authorization: Token {token}" {url}/api/v1/matches/web/', soft_wrap=True, highlight=False)
    for title, batch in batches:
        console.print(f"  {title}: " + ", ".join(f"{getattr(batch, kind).count} {kind}" for kind in _KINDS))
        for name in _ARTIFACTS:
            if isinstance(address := attrgetter(name)(batch), str):
                console.print(f"    {name:12} {address}", soft_wrap=True, highlight=False)


def picture(
    file: Path, served: Served, wanted: Mapping[Sighting, Planted], rows: Iterable[Match], report: Report, seconds: float, delay: float
) -> None:
    """The README's picture: of every kind of alteration the first match, and the summary."""
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=104, file=nowhere)
        heading(console)
        kinds = {planted.alteration: row for row in reversed(list(rows)) if (planted := wanted.get(sighting(row)))}
        for row in islice(kinds.values(), _PICTURE_ROWS):
            match(console, served, wanted, row)
        console.print("...")
        summary(console, served, report, seconds, delay)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_FONTS.sub("", console.export_svg(title="make demo")))
