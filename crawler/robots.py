"""robots.txt as RFC 9309 has it. Pure: who fetches it, follows its redirects and asks again later is the worker."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from protego import Protego

MAX_BYTES: Final = 500 << 10
"""What is parsed (RFC 9309, 2.5); the rest is ignored, a line cut in the middle too."""
MAX_DELAY: Final = 300.0
"""Seconds: a longer Crawl-delay counts as this one, so that a typing error does not end the crawl of a site."""
RETRY_AFTER: Final = 600.0
"""Seconds until a robots.txt that could not be had is asked for again."""
UNREACHABLE: Final = "robots unreachable"
"""Why a URL is not requested when its robots.txt could not be had."""
_REMEMBERED: Final = 4096


class Robots:
    """The rules of one origin."""

    def __init__(self, rules: Any, *, refusal: str = "robots", retry_after: float = 0.0) -> None:
        self._rules = rules
        self.refusal = refusal
        """Why a URL is not requested, for skipped.log: `robots`, or `robots unreachable`."""
        self.retry_after = retry_after
        """Seconds after which to ask again; 0 = not before the answer is stale."""
        self._delay = lru_cache(_REMEMBERED)(rules.crawl_delay) if rules is not None else None
        self._can_fetch = lru_cache(_REMEMBERED)(rules.can_fetch) if rules is not None else None

    @classmethod
    def parse(cls, body: bytes) -> Robots:
        """The rules in a robots.txt; never raises. Bytes that are no UTF-8 are read as replacement characters."""
        if len(body) > MAX_BYTES:
            body = body[:MAX_BYTES].rpartition(b"\n")[0]
        return cls(Protego.parse(body.decode("utf-8-sig", "replace").replace("\0", "")))

    @classmethod
    def allow_all(cls) -> Robots:
        return cls.parse(b"")

    @classmethod
    def from_answer(cls, status: int | None, body: bytes) -> Robots:
        """The rules that the last hop's answer means.

        Args:
            status: None = no answer.
            body: decoded; read for 2xx only.

        Returns:
            2xx: what it says. 3xx (too many hops) and 4xx: everything is allowed. 5xx, 429 and no answer: nothing is, until asked again.
        """
        if status is None or status >= 500 or status == 429:
            return cls(None, refusal=UNREACHABLE, retry_after=RETRY_AFTER)
        return cls.parse(body) if 200 <= status < 300 else cls.allow_all()

    def allowed(self, url: str, agent: str) -> bool:
        """Whether a crawler with that User-Agent header may ask for a normalised URL."""
        return self._can_fetch is not None and bool(self._can_fetch(url, product(agent)))

    def crawl_delay(self, agent: str) -> float | None:
        """Seconds between requests that the site asks for, 0 to MAX_DELAY; None if it asks for nothing that makes sense."""
        delay = self._delay(product(agent)) if self._delay is not None else None
        return min(float(delay), MAX_DELAY) if delay is not None and delay >= 0 else None

    @property
    def sitemaps(self) -> tuple[str, ...]:
        return tuple(self._rules.sitemaps) if self._rules is not None else ()


def product(agent: str) -> str:
    """The product token of a User-Agent header, by which groups are chosen: `filigrane` of `filigrane/0.1 (+https://...)`."""
    return agent.strip().partition("/")[0].partition(" ")[0]
