"""What was used most recently: bounded by number or weight."""

from __future__ import annotations

from matcher.recent import Recent


def test_what_was_used_least_recently_goes_first() -> None:
    recent: Recent[str] = Recent(2)
    recent.put("a", "1")
    recent.put("b", "2")
    assert recent.get("a") == "1"
    recent.put("c", "3")
    assert ("a" in recent, "b" in recent, "c" in recent) == (True, False, True)
    assert recent.get("b") is None


def test_entries_weigh_and_the_last_one_stays() -> None:
    recent: Recent[bytes] = Recent(10, len)
    recent.put("a", bytes(4))
    recent.put("a", bytes(6))
    recent.put("b", bytes(4))
    assert "a" in recent, "what was replaced does not count twice"
    recent.put("c", bytes(11))
    assert [key in recent for key in "abc"] == [False, False, True]
