"""When a domain may be asked again.

All requests to a registrable domain share one clock: with a delay, one request at a time, the next one no sooner than the delay after the
bytes of the last one were sent; without, a bounded number at once. A session's requests also keep the session's own delay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

AT_ONCE: Final = 8
"""Requests in flight on a domain whose delay is 0."""


@dataclass(slots=True)
class Clock:
    """One domain, in monotonic seconds."""

    next_allowed: float = 0.0
    in_flight: int = 0
    crawl_delay: float = 0.0
    """What robots.txt of the domain's hosts asks for; the longest one counts."""
    sent: dict[int, float] = field(default_factory=dict)
    """session -> when its last request was sent."""

    def delay(self, delays: Iterable[float]) -> float:
        """Between two requests to the domain: the smallest delay of the sessions that run on it, or robots' Crawl-delay when longer."""
        return max(min(delays, default=0.0), self.crawl_delay)

    def allowed_at(self, now: float, delay: float) -> float | None:
        """When a request may go out: now or later; None = when one of those in flight has ended."""
        if self.in_flight >= (1 if delay else AT_ONCE):
            return None
        return max(now, self.next_allowed)

    def session_allowed_at(self, session: int, delay: float) -> float:
        return self.sent.get(session, float("-inf")) + max(delay, self.crawl_delay)

    def started(self) -> None:
        self.in_flight += 1

    def ended(self, session: int, sent_at: float, delay: float) -> None:
        """The request is over; `sent_at` is when its bytes were written."""
        self.in_flight -= 1
        self.sent[session] = max(sent_at, self.sent.get(session, sent_at))
        self.next_allowed = max(self.next_allowed, sent_at + delay)


class Politeness:
    """The clocks of all domains that this worker holds."""

    def __init__(self) -> None:
        self._clocks: dict[str, Clock] = {}

    def clock(self, domain: str) -> Clock:
        return self._clocks.setdefault(domain, Clock())

    def taken_over(self, domain: str, now: float, delay: float) -> None:
        """The domain's lease was just taken: whoever held it may have sent a request a moment ago."""
        clock = self.clock(domain)
        clock.next_allowed = max(clock.next_allowed, now + max(delay, clock.crawl_delay))
