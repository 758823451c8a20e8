"""The leases that this worker holds, in its own time.

The database decides who may take a lease. A holder stops by itself before that, counting from before it asked the database: by its
monotonic clock, which never jumps, and by the wall's, which goes on while a machine sleeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from core import leases
from core.errors import StaleLease
from core.leases import Held
from core.services import Services

TTL: Final = 30.0
"""Seconds that a lease on a domain with sessions lasts."""
SHORT_TTL: Final = 12.0
"""The same for a host of which only pictures are wanted."""
TURN: Final = 30.0
"""Seconds that a lease is kept although somebody asks for it."""
IDLE: Final = 2.0
"""Seconds without use after which it is given back."""


@dataclass(slots=True)
class _Holding:
    """Times are monotonic."""

    held: Held
    ttl: float
    since: float
    """When it was taken."""
    renewed: float
    """Before the database was asked last; `renewed_at` is the same moment by the clock on the wall."""
    renewed_at: datetime
    used: float
    """When something last waited or was under way there."""
    begun: bool = False
    """Requests may go out: it is known here how long the last holder's delay is to be waited out."""
    yielding: bool = False

    @property
    def margin(self) -> float:
        """A holder stops this long before its lease ends."""
        return self.ttl / 6


class Holdings:
    """Leases by domain. The first methods are for the event loop; those that talk to the database are called one at a time, in a thread."""

    def __init__(self, services: Services, holder: str) -> None:
        self._services = services
        self._holder = holder
        self._holdings: dict[str, _Holding] = {}

    # --- what is held

    def may(self, domain: str, delay: float) -> bool:
        """Whether a request may be handed out: the lease lasts, nobody else is let in, and its row tells the next holder of this delay."""
        holding = self._holdings.get(domain)
        if holding is None or not holding.begun or holding.yielding:
            return False
        return delay <= holding.held.delay and self._lasts(holding)

    def lasts(self, domain: str) -> bool:
        """Whether what is done under the lease now is done before anybody else may start."""
        holding = self._holdings.get(domain)
        return holding is not None and self._lasts(holding)

    def guard(self, domain: str) -> Callable[[], bool]:
        """Whether the lease of now still lasts, whenever that is asked."""
        held = self.held(domain)

        return lambda: held is not None and self.has(held) and self.lasts(domain)

    def _lasts(self, holding: _Holding) -> bool:
        clock, lasts = self._services.clock, holding.ttl - holding.margin
        return clock.monotonic() - holding.renewed < lasts and clock.now() - holding.renewed_at < timedelta(seconds=lasts)

    def has(self, held: Held) -> bool:
        """Whether this lease was not lost, nor lost and taken anew."""
        holding = self._holdings.get(held.domain)
        return holding is not None and holding.held.epoch == held.epoch

    def held(self, domain: str) -> Held | None:
        holding = self._holdings.get(domain)
        return holding.held if holding else None

    def domains(self) -> list[str]:
        return list(self._holdings)

    def used(self, domain: str) -> None:
        if domain in self._holdings:
            self._holdings[domain].used = self._services.clock.monotonic()

    def is_idle(self, domain: str) -> bool:
        holding = self._holdings.get(domain)
        return holding is not None and self._services.clock.monotonic() - holding.used >= IDLE

    def had_its_turn(self, domain: str) -> bool:
        holding = self._holdings.get(domain)
        return holding is not None and self._services.clock.monotonic() - holding.since >= TURN

    def begin(self, domain: str) -> None:
        """From now on requests may go out."""
        if domain in self._holdings:
            self._holdings[domain].begun = True

    def give_way(self, domain: str) -> None:
        """Nothing more is begun under it; what is under way ends."""
        if domain in self._holdings:
            self._holdings[domain].yielding = True

    def yields(self, domain: str) -> bool:
        holding = self._holdings.get(domain)
        return holding is not None and holding.yielding

    # --- what the database is asked

    def acquire(self, domain: str, *, delay: float = 0.0, pictures: bool = False) -> Held | None:
        """Takes or prolongs the lease; None when somebody else has it. One that was taken waits for `begin`.

        `pictures`: no session is to run there. The lease is short, and another holder is asked for it: who holds a session's domain runs
        the session itself.
        """
        asked, now = self._services.clock.monotonic(), self._services.clock.now()
        mine = self._holdings.get(domain)
        ttl = SHORT_TTL if pictures else TTL
        with self._services.database.write() as tx:
            held = self._renewed(tx, mine.held, max(ttl, mine.ttl), max(delay, mine.held.delay)) if mine else None
            if held is None:
                held = leases.acquire(tx, domain, self._holder, ttl, now, delay=delay, restart=True, ask=pictures)
        if held is None:
            self._holdings.pop(domain, None)
            return None
        if mine is not None and mine.held.epoch == held.epoch:
            mine.held, mine.ttl, mine.renewed, mine.renewed_at = held, max(ttl, mine.ttl), asked, now
        else:
            self._holdings[domain] = _Holding(held, ttl, since=asked, renewed=asked, renewed_at=now, used=asked)
        return held

    def _renewed(self, tx: Session, held: Held, ttl: float, delay: float) -> Held | None:
        """The same lease, also when its time ran out and nobody took it: what was crawled under it still counts."""
        try:
            return leases.renew(tx, held, ttl, self._services.clock.now(), delay=delay)
        except StaleLease:
            return None

    def renew(self, delays: Mapping[str, float]) -> list[str]:
        """Prolongs what has used up a third of its time, and tells the rows the delays; returns the domains that were lost."""
        asked, now = self._services.clock.monotonic(), self._services.clock.now()
        lost, renewed = [], {}
        due = sorted(domain for domain, holding in self._holdings.items() if self._is_due(holding, delays.get(domain), asked))
        if not due:
            return []
        with self._services.database.write() as tx:
            for domain in due:
                holding = self._holdings[domain]
                held = self._renewed(tx, holding.held, holding.ttl, delays.get(domain, holding.held.delay))
                if held is None:
                    lost.append(domain)
                else:
                    renewed[domain] = held
        for domain, held in renewed.items():
            holding = self._holdings[domain]
            holding.held, holding.renewed, holding.renewed_at = held, asked, now
        for domain in lost:
            del self._holdings[domain]
        return lost

    def _is_due(self, holding: _Holding, delay: float | None, now: float) -> bool:
        return now - holding.renewed >= holding.ttl / 3 or delay not in (None, holding.held.delay)

    def asked_for(self) -> list[str]:
        """What somebody else asks for, and has been held for a turn."""
        if not any(self.had_its_turn(domain) for domain in self._holdings):
            return []
        with self._services.database.read() as tx:
            asked = leases.asked_for(tx, self._holder, self._services.clock.now())
        return [domain for domain in asked if self.had_its_turn(domain)]

    def release(self, domain: str) -> None:
        holding = self._holdings.pop(domain, None)
        if holding is not None:
            with self._services.database.write() as tx:
                leases.release(tx, holding.held)
