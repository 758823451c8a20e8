"""robots.txt after RFC 9309: what it means when it is there, when it is not, and when nobody can tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from protego import Protego

MAX_BYTES: Final = 500 << 10
MAX_CRAWL_DELAY: Final = 300.0
"""Seconds; a site that asks for more gets this."""
RETRY_AFTER: Final = 300.0
"""Seconds before a robots.txt that could not be had is asked for again."""


@dataclass(frozen=True, slots=True)
class Robots:
    """The rules of one origin."""

    rules: Protego | None
    """None: everything is allowed, or with a refusal nothing is."""
    refusal: str = "robots"
    """Why a URL is not requested when it is not allowed: robots, or robots_unreachable."""
    retry_after: float | None = None

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """The first 500 KiB count; bytes that are no UTF-8 spoil only their own line."""
        return cls(Protego.parse(body[:MAX_BYTES].decode("utf-8-sig", "replace").replace("\0", "")))

    @classmethod
    def from_answer(cls, status: int | None, body: bytes) -> Self:
        """2xx: the rules; 4xx and redirects that lead nowhere: all is allowed; 5xx and no answer (None): nothing, for a while."""
        if status is None or status >= 500:
            return cls(None, "robots_unreachable", RETRY_AFTER)
        return cls.parse(body) if 200 <= status < 300 else cls.allow_all()

    @classmethod
    def allow_all(cls) -> Self:
        return cls(None, "")

    def allowed(self, url: str, agent: str) -> bool:
        """Whether the agent may request the URL."""
        if self.rules is None:
            return not self.refusal
        return bool(self.rules.can_fetch(url, agent))

    def crawl_delay(self, agent: str) -> float | None:
        """Seconds between requests that the site asks the agent for, within reason."""
        delay = self.rules.crawl_delay(agent) if self.rules else None
        return min(float(delay), MAX_CRAWL_DELAY) if delay and delay > 0 else None
