"""No two requests to a domain are closer than the delay, however long the answers take and whoever asks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from crawler.politeness import AT_ONCE, Clock, Politeness


def test_without_a_delay_a_bounded_number_is_in_flight() -> None:
    clock = Clock()
    for _ in range(AT_ONCE):
        assert clock.allowed_at(5.0, 0.0) == 5.0
        clock.started()
    assert clock.allowed_at(5.0, 0.0) is None
    clock.ended(1, 5.0, 0.0)
    assert clock.allowed_at(6.0, 0.0) == 6.0


def test_robots_crawl_delay_counts_when_longer() -> None:
    clock = Clock(crawl_delay=2.0)
    assert clock.delay([0.5, 1.0]) == 2.0
    assert clock.delay([3.0]) == 3.0
    assert Clock().delay([3.0, 1.0]) == 1.0


def test_a_domain_that_was_taken_over_waits_out_the_delay() -> None:
    politeness = Politeness()
    politeness.taken_over("a.example", 100.0, 1.5)
    assert politeness.clock("a.example").allowed_at(100.0, 1.5) == 101.5


@given(
    st.lists(st.tuples(st.integers(1, 3), st.floats(0, 3), st.floats(0, 3)), max_size=30),
    st.fixed_dictionaries({1: st.floats(0.1, 2), 2: st.floats(0.1, 2), 3: st.floats(0.1, 2)}),
)
def test_gaps_hold_for_domain_and_session(asked: list[tuple[int, float, float]], delays: dict[int, float]) -> None:
    clock, now, sent = Clock(), 0.0, []
    shortest = min(delays.values())
    for session, taken_up, answer in asked:
        allowed = clock.allowed_at(now, clock.delay(delays.values()))
        assert allowed is not None
        now = max(allowed, clock.session_allowed_at(session, delays[session]))
        clock.started()
        now += taken_up
        sent.append((session, now))  # when the server takes it up
        now += answer
        clock.ended(session, now, clock.delay(delays.values()))
    times = [at for _, at in sent]
    assert all(later - earlier >= shortest - 1e-9 for earlier, later in pairwise(times))
    for session, delay in delays.items():
        own = [at for who, at in sent if who == session]
        assert all(later - earlier >= delay - 1e-9 for earlier, later in pairwise(own))
