"""What the demo expects, what was found, and the difference."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from core.models import Match
from filigrane.demo.plan import Place, Planted
from filigrane.demo.server import Request, Served

_SMALLEST: Final = 1e-300
"""Below it doubles say nothing exact."""


class Sighting(NamedTuple):
    """An original's copy: this file on this page (addresses)."""

    original: str
    file: str
    page: str


@dataclass(frozen=True)
class Report:
    """`missed` was planted and not found; `wrong` was matched and not planted (decoys, duplicates, what robots.txt forbids)."""

    planted: int
    found: int
    missed: tuple[Sighting, ...]
    wrong: tuple[Sighting, ...]
    decoys_matched: int
    trespassed: tuple[str, ...]
    """Addresses that robots.txt forbids and that were asked for all the same."""

    @property
    def good(self) -> bool:
        return not (self.missed or self.wrong or self.trespassed)


def expected(served: Served) -> dict[Sighting, Planted]:
    """One sighting for each planted file on each of its pages."""
    return {Sighting(copy.original, served.url(copy.file), served.url(page)): copy for copy in served.plan.planted for page in copy.pages}


def sighting(match: Match) -> Sighting:
    """What a match says. The demo registers each original under its own name."""
    name = PurePosixPath(match.media[0].path).stem if match.media else ""
    return Sighting(name, match.query_url, match.page_url)


def compare(served: Served, matches: Sequence[Match]) -> Report:
    wanted = expected(served)
    seen = Counter(sighting(match) for match in matches)
    decoys = {served.url(decoy.file) for decoy in served.plan.decoys}
    return Report(
        planted=len(wanted),
        found=sum(1 for each in wanted if each in seen),
        missed=tuple(sorted(each for each in wanted if each not in seen)),
        wrong=tuple(sorted(each for each, times in seen.items() for _ in range(times - (each in wanted)))),
        decoys_matched=sum(times for each, times in seen.items() if each.file in decoys),
        trespassed=_trespassed(served),
    )


def _trespassed(served: Served) -> tuple[str, ...]:
    forbidden = set(served.plan.forbidden)
    return tuple(served.url(place) for request in served.requests if (place := Place(request.host, request.path)) in forbidden)


def evidence(match: Match) -> str:
    """Why it is a match, in a few characters."""
    if match.watermarked and match.p_value is not None:
        return f"watermark p={match.p_value:.0e}" if match.p_value > _SMALLEST else f"watermark p<{_SMALLEST:.0e}"
    return f"{match.verdict} score {match.score:.0f}" if match.score is not None else str(match.verdict)


def smallest_gap(requests: Iterable[Request]) -> float:
    """Seconds between the two requests to one host that were closest to each other."""
    times: Mapping[str, list[float]] = defaultdict(list)
    for request in requests:
        times[request.host].append(request.at)
    return min((later - earlier for each in times.values() for earlier, later in pairwise(sorted(each))), default=0.0)
