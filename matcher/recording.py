"""Drafts become matches, in transactions that are kind to others. Recording again changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from core import telemetry
from core.repo import matches
from core.repo.matches import MatchDraft
from core.services import Services
from matcher.pipeline import stage_seconds

_AT_ONCE: Final = 500
"""Matches in one transaction: others wait for it."""
_MATCHES: Final = telemetry.counter("filigrane_matcher_matches", "Matches recorded for the first time")


def record(services: Services, drafts: Sequence[MatchDraft]) -> int:
    """How many are new. Raises Unavailable."""
    ordered = sorted(drafts, key=lambda draft: (draft.account_id, draft.picture_id))
    return sum(_record(services, ordered[start : start + _AT_ONCE]) for start in range(0, len(ordered), _AT_ONCE))


def _record(services: Services, drafts: Sequence[MatchDraft]) -> int:
    now = services.clock.now()
    with stage_seconds.labels("record").time():
        new = services.database.transact(lambda tx: matches.record(tx, drafts, now))
    _MATCHES.inc(len(new))
    return len(new)
