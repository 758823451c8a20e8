"""The robots.txt of the origins that this worker asks: known for a day, asked for once at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from crawler.robots import Robots

FRESH_SECONDS: Final = 24 * 3600.0
"""RFC 9309, 2.4: not to be used for longer."""

MANY: Final = 10_000
"""Origins after which the stale ones are thrown away."""


class Rulebook:
    """Rules by origin."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._rules: dict[str, tuple[Robots, float]] = {}
        self._asking: set[str] = set()

    def rules(self, site: str) -> Robots | None:
        """None: not known, or not any more."""
        rules, until = self._rules.get(site, (None, 0.0))
        return rules if self._monotonic() < until else None

    def known(self) -> list[tuple[str, Robots]]:
        """(origin, rules)"""
        return [(site, rules) for site, (rules, _) in self._rules.items()]

    def ask(self, site: str) -> bool:
        """Whether the robots.txt is to be fetched now, by whoever asked; False while somebody does."""
        if site in self._asking:
            return False
        self._asking.add(site)
        return True

    def learn(self, site: str, rules: Robots) -> None:
        self._asking.discard(site)
        now = self._monotonic()
        self._rules = {other: known for other, known in self._rules.items() if now < known[1]} if len(self._rules) > MANY else self._rules
        self._rules[site] = rules, self._monotonic() + (rules.retry_after or FRESH_SECONDS)

    def forget(self, site: str) -> None:
        """It was not fetched after all."""
        self._asking.discard(site)
