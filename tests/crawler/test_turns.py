"""Accounts take turns on a domain, and so do the sessions of an account, however they come and go."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.models import CrawlSession
from crawler.frontier import Frontier
from crawler.politeness import Politeness
from crawler.queue import Dispatcher
from crawler.rulebook import Rulebook
from tests.crawler.test_trouble import FREE

ENOUGH = 200


class FakeCycle:
    """What the dispatcher sees of a cycle that never runs out of work."""

    def __init__(self, account: int, session: int) -> None:
        self.session = CrawlSession(id=session, account_id=account, domain="a.example", download_delay=0.0)
        self.frontier = Frontier()
        self.frontier.seed([f"http://a.example/{session}/{number}" for number in range(ENOUGH)])
        self.agent = "filigrane"
        self.ending, self.unstored, self.in_flight = "", 0, 0

    def next(self, domain: str, rulebook: Rulebook) -> Any:
        return self.frontier.take(domain)


def served(dispatcher: Dispatcher, now: list[float], rounds: int) -> list[CrawlSession]:
    """Whose requests go out, one after the other."""
    sessions = []
    for _ in range(rounds):
        picked = dispatcher.next()
        assert picked is not None
        dispatcher.ended(*picked, now[0])
        sessions.append(picked[0].session)
        now[0] += 1.0
    return sessions


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(1, 40), st.data())
def test_no_account_and_no_session_waits_longer_than_the_others(accounts: list[int], rounds: int, data: st.DataObject) -> None:
    now = [0.0]
    dispatcher = Dispatcher(Politeness(), Rulebook(lambda: now[0]), FREE, lambda: now[0])
    cycles: list[Any] = [FakeCycle(account, number) for number, account in enumerate(accounts)]
    for cycle in cycles:
        dispatcher.join(cycle)
    assert_even(served(dispatcher, now, rounds), accounts)
    gone = data.draw(st.integers(0, len(cycles) - 1))
    if len(cycles) > 1:
        dispatcher.leave(cycles.pop(gone))
        assert_even(served(dispatcher, now, rounds), [cycle.session.account_id for cycle in cycles])


def assert_even(sessions: list[CrawlSession], accounts: list[int]) -> None:
    by_account = Counter(session.account_id for session in sessions)
    assert max(by_account.values()) - min(by_account[account] for account in accounts) <= 1
    for account in set(accounts):
        own = Counter(session.id for session in sessions if session.account_id == account)
        if len(own) < accounts.count(account):
            assert max(own.values(), default=0) <= 1
        else:
            assert max(own.values()) - min(own.values()) <= 1
