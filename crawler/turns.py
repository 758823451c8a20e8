"""Whose turn it is on a domain: its accounts in turn, and the sessions of an account in turn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from crawler.cycle import Cycle


class Turns:
    """The running cycles that have had work on one domain."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[int, OrderedDict[int, Cycle]] = OrderedDict()

    def __iter__(self) -> Iterator[Cycle]:
        """Who has waited longest comes first."""
        for sessions in list(self._accounts.values()):
            yield from list(sessions.values())

    def __contains__(self, cycle: Cycle) -> bool:
        sessions = self._accounts.get(cycle.session.account_id)
        return sessions is not None and sessions.get(cycle.session.id) is cycle

    def __bool__(self) -> bool:
        return bool(self._accounts)

    def add(self, cycle: Cycle) -> None:
        self._accounts.setdefault(cycle.session.account_id, OrderedDict()).setdefault(cycle.session.id, cycle)

    def remove(self, cycle: Cycle) -> None:
        sessions = self._accounts[cycle.session.account_id]
        del sessions[cycle.session.id]
        if not sessions:
            del self._accounts[cycle.session.account_id]

    def served(self, cycle: Cycle) -> None:
        """It had its turn."""
        self._accounts[cycle.session.account_id].move_to_end(cycle.session.id)
        self._accounts.move_to_end(cycle.session.account_id)
