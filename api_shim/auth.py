"""Who is asking."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from starlette.datastructures import Headers

from api_shim.errors import TooManyRequests
from core.clock import Clock
from core.errors import Unauthorized
from core.models import Account
from core.repo import accounts
from core.services import Services

FAILURES_PER_MINUTE: Final = 10
_ADDRESSES: Final = 10_000


def authenticate(services: Services, headers: Headers) -> Account:
    """The account whose token the request carries. Raises Unauthorized."""
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() != "token" or not token.strip():
        raise Unauthorized("send your token in the header 'Authorization: Token <token>'", code="token_required")
    with services.database.read() as tx:
        return accounts.by_token(tx, token.strip())


class Attempts:
    """Bounds the failed sign-ins of an address: at most FAILURES_PER_MINUTE, then it has to wait. Thread-safe; per process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises TooManyRequests."""
        with self._lock:
            recent = self._recent(address)
            if len(recent) >= FAILURES_PER_MINUTE:
                wait = int(recent[0] + 60 - self._clock.monotonic()) + 1
                raise TooManyRequests("too many failed attempts; wait a little", retry_after=max(1, wait))

    def failed(self, address: str) -> None:
        with self._lock:
            self._failures[address] = [*self._recent(address), self._clock.monotonic()]
            self._failures.move_to_end(address)
            while len(self._failures) > _ADDRESSES:
                self._failures.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        since = self._clock.monotonic() - 60
        return [moment for moment in self._failures.get(address, []) if moment > since]
