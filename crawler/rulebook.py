"""The robots.txt of the origins that this worker asks: known for a day, asked for once at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from core.urls import registrable_domain
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
        self._by_domain: dict[str, dict[str, Robots]] = {}
        self._asking: set[str] = set()

    def rules(self, site: str) -> Robots | None:
        """None: not known, or not any more."""
        rules, until = self._rules.get(site, (None, 0.0))
        return rules if self._monotonic() < until else None

    def knows(self, domain: str) -> bool:
        """Whether rules of any of the domain's hosts were read."""
        return domain in self._by_domain

    def crawl_delay(self, domain: str, agents: Iterable[str]) -> float:
        """The longest Crawl-delay that the domain's hosts ask these agents for, in seconds."""
        sites = self._by_domain.get(domain, {})
        return max((rules.crawl_delay(agent) or 0.0 for agent in set(agents) for rules in sites.values()), default=0.0)

    def ask(self, site: str) -> bool:
        """Whether the robots.txt is to be fetched now, by whoever asked; False while somebody does."""
        if site in self._asking:
            return False
        self._asking.add(site)
        return True

    def learn(self, site: str, rules: Robots) -> None:
        self._asking.discard(site)
        if len(self._rules) >= MANY:
            self._forget_stale()
        self._by_domain.setdefault(registrable_domain(site), {})[site] = rules
        self._rules[site] = rules, self._monotonic() + (rules.retry_after or FRESH_SECONDS)

    def forget(self, site: str) -> None:
        """It was not fetched after all."""
        self._asking.discard(site)

    def _forget_stale(self) -> None:
        now = self._monotonic()
        self._rules = {site: known for site, known in self._rules.items() if now < known[1]}
        self._by_domain = {}
        for site, (rules, _) in self._rules.items():
            self._by_domain.setdefault(registrable_domain(site), {})[site] = rules
