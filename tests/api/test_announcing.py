"""What is committed is sent at once; a bus that hangs keeps nobody who committed."""

from __future__ import annotations

import threading

from api_shim.announcing import Announcer


def test_who_announces_sees_it_sent() -> None:
    sent: list[int] = []
    announcer = Announcer(lambda: sent.append(1), patience=30)
    announcer.announce()
    announcer.announce()
    announcer.close()
    assert sent == [1, 1]


def test_a_drain_that_hangs_is_not_waited_for_and_does_not_pile_up() -> None:
    gate, begun = threading.Event(), threading.Semaphore(0)

    def hangs() -> None:
        begun.release()
        assert gate.wait(30)

    announcer = Announcer(hangs, patience=0.01)
    for _ in range(50):
        announcer.announce()
    gate.set()
    assert begun.acquire(timeout=30)
    assert begun.acquire(timeout=30)  # the one that was queued finds what the others committed
    assert not begun.acquire(blocking=False)
    announcer.close()
