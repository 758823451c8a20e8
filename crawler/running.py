"""The cycles that run in this process, and what they share: journal, rules, clocks, leases and turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import structlog

from core.services import Services
from core.urls import origin, registrable_domain
from crawler.cycle import Cycle
from crawler.holdings import Holdings
from crawler.journal import Journal
from crawler.place import Place
from crawler.politeness import Politeness
from crawler.queue import Dispatcher
from crawler.rulebook import Rulebook

log = structlog.get_logger()


class Running:
    """Used by the event loop alone."""

    poke: Callable[[], None]
    """Makes the engine ask for the next request."""

    def __init__(self, services: Services, place: Place) -> None:
        self.services = services
        self.place = place
        self.cycles: dict[int, Cycle] = {}
        self.journal = Journal(place.folder)
        self.rulebook = Rulebook(services.clock.monotonic)
        self.politeness = Politeness()
        self.holdings = Holdings(services, place.holder)
        self.dispatcher = Dispatcher(self.politeness, self.rulebook, self.holdings, services.clock.monotonic)
        self.poke = lambda: None

    def has(self, cycle: Cycle) -> bool:
        return self.cycles.get(cycle.session.id) is cycle

    def of_domain(self, domain: str) -> list[Cycle]:
        return [cycle for cycle in self.cycles.values() if cycle.session.domain == domain]

    def domains(self) -> Iterator[str]:
        return (cycle.session.domain for cycle in self.cycles.values())

    def wake(self, cycle: Cycle) -> None:
        """Looks at everything that waits in it."""
        for domain in cycle.frontier.domains():
            self.dispatcher.wake(domain)
        self.poke()

    def let_go(self, cycle: Cycle) -> None:
        """A robots.txt that moved and that the cycle does not follow any more is for others to ask for."""
        for task in cycle.frontier.unfinished():
            if task.kind == "robots":
                self.rulebook.forget(origin(task.url))
                self.dispatcher.wake(registrable_domain(task.address))

    def leave(self, cycle: Cycle) -> None:
        """All of it is stored, and what this disk holds of it is of no use any more."""
        del self.cycles[cycle.session.id]
        self.dispatcher.leave(cycle)
        self.journal.cover(*cycle.key)

    def lose(self, cycle: Cycle, reason: str) -> None:
        """Nothing more of this cycle is done here."""
        if not self.has(cycle):
            return
        log.warning("crawler.cycle_lost", session=cycle.session.id, cycle=cycle.key[1], epoch=cycle.held.epoch, reason=reason)
        cycle.ending = reason
        self.let_go(cycle)
        self.leave(cycle)
        cycle.drop()
