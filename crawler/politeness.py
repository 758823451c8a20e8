"""When a domain may be asked again.

All requests to a registrable domain share one clock: with a delay, one request at a time, the next one no sooner than the delay after the
answer to the last one began; without, a bounded number at once. A session's requests also keep the session's own delay.

Counting from the answer, not from the bytes sent: a busy server may take up a request late and the next one at once, and would then see
them closer together than they were sent. It has certainly taken up what it answers.
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
    answered: float = float("-inf")
    """When the last request was answered."""
    taken_over: float = float("-inf")
    """When the domain's lease was taken; until then others may have asked for the same sessions."""
    in_flight: int = 0
    crawl_delay: float = 0.0
    """What robots.txt of the domain's hosts asks for; the longest one counts."""
    last: dict[int, float] = field(default_factory=dict)
    """session -> when its last request was answered."""

    def delay(self, delays: Iterable[float]) -> float:
        """Between two requests to the domain: the smallest delay of the sessions that run on it, or robots' Crawl-delay when longer."""
        return max(min(delays, default=0.0), self.crawl_delay)

    def allowed_at(self, now: float, delay: float) -> float | None:
        """When a request may go out: now or later; None = when one of those in flight has ended."""
        if self.in_flight >= (1 if delay else AT_ONCE):
            return None
        return max(now, self.next_allowed, self.answered + delay)

    def session_allowed_at(self, session: int, delay: float) -> float:
        return self.last.get(session, self.taken_over) + max(delay, self.crawl_delay)

    def started(self) -> None:
        self.in_flight += 1

    def ended(self, session: int, answered_at: float | None, delay: float) -> None:
        """The request is over; `answered_at` is when its answer began, or when it was given up; None = it was never sent."""
        self.in_flight -= 1
        if answered_at is None:
            return
        self.answered = max(self.answered, answered_at)
        self.last[session] = max(answered_at, self.last.get(session, answered_at))
        self.next_allowed = max(self.next_allowed, answered_at + delay)


class Politeness:
    """The clocks of all domains that this worker holds."""

    def __init__(self) -> None:
        self._clocks: dict[str, Clock] = {}

    def clock(self, domain: str) -> Clock:
        return self._clocks.setdefault(domain, Clock())

    def in_flight(self, domain: str) -> int:
        return self._clocks[domain].in_flight if domain in self._clocks else 0

    def taken_over(self, domain: str, now: float, delay: float) -> None:
        """The domain's lease was just taken: whoever held it may have sent a request a moment ago."""
        clock = self.clock(domain)
        clock.taken_over = now
        clock.next_allowed = max(clock.next_allowed, now + max(delay, clock.crawl_delay))

    def forget(self, domain: str) -> None:
        """Its lease was given back: whoever takes it next waits out the delay first."""
        if domain in self._clocks and not self._clocks[domain].in_flight:
            del self._clocks[domain]
