"""The leases that this worker holds, in its own monotonic time.

The clock on the wall decides in the database who may take a lease; here only monotonic time counts, measured from before the database
was asked, so a worker that slept stops by itself before anybody else may start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from core import leases
from core.errors import StaleLease
from core.leases import Held
from core.services import Services

TTL: Final = 30.0
MARGIN: Final = 5.0
"""A holder stops this long before its lease ends."""


@dataclass(slots=True)
class _Holding:
    held: Held
    until: float


class Holdings:
    """Leases by domain. `may` is asked before every request; the other methods talk to the database and run in a thread."""

    def __init__(self, services: Services, holder: str) -> None:
        self._services = services
        self._holder = holder
        self._holdings: dict[str, _Holding] = {}
        self._seen: set[str] = set()

    def may(self, domain: str) -> bool:
        """Whether a request to the domain may go out now."""
        holding = self._holdings.get(domain)
        return holding is not None and self._services.clock.monotonic() < holding.until

    def held(self, domain: str) -> Held | None:
        holding = self._holdings.get(domain)
        return holding.held if holding else None

    def domains(self) -> list[str]:
        return list(self._holdings)

    def acquire(self, domain: str) -> Held | None:
        """Takes or renews the lease; None when somebody else has it."""
        asked = self._services.clock.monotonic()
        mine = self._holdings.get(domain)
        with self._services.database.write() as tx:
            held = self._renewed(tx, mine.held) if mine else None
            if held is None:
                held = leases.acquire(tx, domain, self._holder, TTL, self._services.clock.now(), restart=domain not in self._seen)
        if held is None:
            self._holdings.pop(domain, None)
            return None
        self._seen.add(domain)
        self._holdings[domain] = _Holding(held, asked + TTL - MARGIN)
        return held

    def _renewed(self, tx: Session, held: Held) -> Held | None:
        """The same lease, also when its time ran out and nobody took it: what was crawled under it still counts."""
        try:
            return leases.renew(tx, held, TTL, self._services.clock.now())
        except StaleLease:
            return None

    def renew(self) -> list[str]:
        """Renews all leases; returns the domains that were lost."""
        lost = []
        for domain, holding in list(self._holdings.items()):
            asked = self._services.clock.monotonic()
            try:
                with self._services.database.write() as tx:
                    held = leases.renew(tx, holding.held, TTL, self._services.clock.now())
            except StaleLease:
                self._holdings.pop(domain, None)
                lost.append(domain)
            else:
                self._holdings[domain] = _Holding(held, asked + TTL - MARGIN)
        return lost

    def release(self, domain: str) -> None:
        holding = self._holdings.pop(domain, None)
        if holding is not None:
            with self._services.database.write() as tx:
                leases.release(tx, holding.held)
