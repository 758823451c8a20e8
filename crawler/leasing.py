"""The worker's side of leases: taking, prolonging, asking for, and giving back (docs/adr/0007)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from core.errors import FiligraneError
from core.leases import Held
from crawler.cycle import Cycle
from crawler.running import Running
from crawler.threads import Threads

REFUSED_FOR: Final = 2.0
"""Seconds before a lease that somebody else has is asked for again."""

log = structlog.get_logger()


class Leasing:
    """Keeps the leases that the running cycles need. The database is asked by one thread, which nothing else holds up."""

    def __init__(self, running: Running, hand_over: Callable[[Cycle], None]) -> None:
        self._running = running
        self._hand_over = hand_over
        self._threads = Threads(1, "leases")
        self._refused_until: dict[str, float] = {}
        self._lapsed: set[str] = set()
        self.opening = ""
        """The domain of a session that is about to begin."""

    # --- taking

    async def take(self, domain: str, delay: float) -> Held | None:
        """The lease for a session that is to run; None when another worker has it, who then runs the session."""
        return await self._take(domain, delay, pictures=False)

    async def _take(self, domain: str, delay: float, *, pictures: bool) -> Held | None:
        holdings = self._running.holdings
        before = holdings.held(domain)
        held = await self._threads.run(partial(holdings.acquire, domain, delay=delay, pictures=pictures))
        for cycle in self._running.of_domain(domain):
            if held is None or cycle.held.epoch != held.epoch:  # somebody else had it meanwhile
                self._running.lose(cycle, "lease lost")
        if held is None:
            self._refused_until[domain] = self._now() + REFUSED_FOR
            return None
        self._refused_until.pop(domain, None)
        if held.epoch > (before.epoch if before else 1):  # another holder may have sent a request a moment ago
            self._running.politeness.taken_over(domain, self._now(), held.delay)
        holdings.begin(domain)
        return held

    async def want(self) -> None:
        """Takes the leases for which work waits; who finds one taken asks for it, and goes on with the rest."""
        dispatcher = self._running.dispatcher
        for domain in [domain for domain in dispatcher.wanted if self._is_time(domain)]:
            if not dispatcher.in_use(domain):  # the cycle that wanted it is over
                dispatcher.wanted.discard(domain)
            elif not self._running.holdings.yields(domain) and await self._take(domain, self._delay(domain), pictures=True):
                dispatcher.wanted.discard(domain)
                self._revive(domain)

    def is_busy(self, domain: str) -> bool:
        """Whether another worker had it when we asked a moment ago."""
        return self._now() < self._refused_until.get(domain, float("-inf")) + REFUSED_FOR

    def closed(self) -> set[str]:
        """Domains where no session may begin: they are being given back, or were refused a moment ago."""
        yielding = {domain for domain in self._running.holdings.domains() if self._running.holdings.yields(domain)}
        return yielding | {domain for domain in self._refused_until if not self._is_time(domain)}

    def _is_time(self, domain: str) -> bool:
        return self._now() >= self._refused_until.get(domain, 0.0)

    # --- keeping and giving back

    async def look(self) -> None:
        """Prolongs leases, gives way to who asks after a turn, gives back what is not used."""
        holdings = self._running.holdings
        self._lapsed |= {domain for domain in holdings.domains() if not holdings.lasts(domain)}
        self._note_use()
        for domain in await self._threads.run(holdings.renew, {domain: self._delay(domain) for domain in holdings.domains()}):
            for cycle in self._running.of_domain(domain):
                self._running.lose(cycle, "lease lost")
        for domain in [domain for domain in self._lapsed if holdings.lasts(domain)]:
            self._revive(domain)
        self._lapsed &= set(holdings.domains())
        for domain in await self._threads.run(holdings.asked_for):
            self._give_way(domain)
        await self._release([domain for domain in holdings.domains() if self._is_free(domain)])
        self._refused_until = {domain: until for domain, until in self._refused_until.items() if self._now() < until + REFUSED_FOR}

    def _revive(self, domain: str) -> None:
        """It is held (again): what waits for it, and for the right to store under it, goes on."""
        self._lapsed.discard(domain)
        self._running.dispatcher.wake(domain)
        for cycle in self._running.of_domain(domain):
            self._running.wake(cycle)
        self._running.poke()

    def _delay(self, domain: str) -> float:
        """What the next holder is told. As long as robots.txt is not known here, or nothing runs, what the last one was told holds too."""
        dispatcher, held = self._running.dispatcher, self._running.holdings.held(domain)
        kept = dispatcher.delay(domain)
        if held is None or (dispatcher.runs_on(domain) and self._running.rulebook.knows(domain)):
            return kept
        return max(kept, held.delay)

    def _note_use(self) -> None:
        homes = {self.opening, *self._running.domains()}
        for domain in self._running.holdings.domains():
            if domain in homes or self._running.dispatcher.in_use(domain):
                self._running.holdings.used(domain)

    def _give_way(self, domain: str) -> None:
        holdings = self._running.holdings
        if domain == self.opening or holdings.yields(domain):
            return
        log.info("crawler.lease_yields", domain=domain)
        holdings.give_way(domain)
        for cycle in self._running.of_domain(domain):
            if not cycle.ending:
                self._hand_over(cycle)

    def _is_free(self, domain: str) -> bool:
        """Given back: after a turn as soon as nothing is under way, else when nothing needed it for a while."""
        if domain == self.opening or self._running.of_domain(domain) or self._running.dispatcher.under_way(domain):
            return False
        return self._running.holdings.yields(domain) or self._running.holdings.is_idle(domain)

    async def _release(self, domains: list[str]) -> None:
        """A lease that cannot be given back runs out."""
        for domain in domains:
            try:
                await self._threads.run(self._running.holdings.release, domain)
            except FiligraneError as error:
                log.warning("crawler.release_failed", domain=domain, code=error.code, details=error.details)
            self._running.politeness.forget(domain)

    async def close(self) -> None:
        """Gives everything back."""
        try:
            await self._release(self._running.holdings.domains())
        finally:
            self._threads.close()

    def _now(self) -> float:
        return self._running.services.clock.monotonic()
