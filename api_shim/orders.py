"""Pictures that are marked while nobody waits. An order is a row: it outlives the process that took it, and any API process may do it.

The key is drawn when the order is taken, so an order that is done twice (a process was thought dead) has the same result twice.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import msgspec
import structlog
from sqlalchemy.orm import Session

from api_shim import limits
from core import vault
from core.errors import FiligraneError, InvalidImage, Unavailable
from core.models import Watermarking
from core.repo import allowances, temporary
from core.services import Services
from matcher import marking
from matcher.decode import Decoders
from matcher.sealing import AccountKeys

PATIENCE: Final = timedelta(seconds=marking.LIMITS.seconds + 30)
"""After so long another process takes up what one has not finished."""
TRIES: Final = 3
"""Deaths of decoders or of whole processes after which the picture is held to be their cause."""
_PAUSE: Final = timedelta(seconds=5)
_LOOK_SECONDS: Final = 2.0
"""Between looks for what other processes left; of its own a process hears at once."""

_log = structlog.get_logger()


class Order(msgspec.Struct, frozen=True):
    """How to mark; `taken`: the beginning of the window whose ration it counts in."""

    key: bytes
    payload: int | None
    secret: str | None
    transactional: bool
    taken: datetime


def sealed(services: Services, folder: str, order: Order) -> bytes:
    return vault.seal(services.settings.secret, f"watermarking {folder}", msgspec.json.encode(order))


class Orders:
    """Works on one after the other, in a thread of its own."""

    def __init__(self, services: Services, keys: AccountKeys, decoders: Decoders) -> None:
        self._services = services
        self._keys = keys
        self._decoders = decoders
        self._news = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="orders", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There is a new one."""
        self._news.set()

    def close(self) -> None:
        """Ends what it is at: another process, or the next one, begins that anew."""
        self._stop.set()
        self._decoders.abandon()
        self._news.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                found = self.work()
            except Exception as error:  # the thread has to outlive whatever an order or the database does
                _log.warning("orders.failed", error=type(error).__name__, reason=str(error))
                found = False
            if not found:
                self._news.wait(_LOOK_SECONDS)
                self._news.clear()

    def work(self) -> bool:
        """Does the next order that is due; whether there was one. Raises Unavailable."""
        row = self._claim()
        if row is None:
            return False
        try:
            self._mark(row)
        except FiligraneError as error:
            if isinstance(error, Unavailable) or self._stop.is_set():
                self._later(row, error)
            elif error.code != "decoder_died" or row.tries >= TRIES:  # else it is as if this process had died
                self._fail(row, error)
        return True

    def _claim(self) -> Watermarking | None:
        now = self._services.clock.now()
        with self._services.database.read() as tx:  # mostly there is none, and looking disturbs nobody
            if not temporary.waiting(tx, now):
                return None
        return self._services.database.transact(partial(temporary.claim, now=now, patience=PATIENCE))

    def _mark(self, row: Watermarking) -> None:
        """Raises what `marking.mark` does, ObjectMissing, Unavailable."""
        if row.tries > TRIES:
            raise InvalidImage("the picture ended the processes that worked on it")
        services, order = self._services, self._order(row)
        data = services.store.get(f"{row.folder}/original")
        public = self._keys.pem(row.account_id).encode()
        marked = self._decoders.run(marking.mark, data, public, order.key, order.payload, order.secret, order.transactional)
        services.store.put(f"{row.folder}/watermarked", marked.file)
        services.store.put(f"{row.folder}/registration", marked.registration)
        services.database.transact(partial(temporary.finish, watermarking_id=row.id))

    def _order(self, row: Watermarking) -> Order:
        opened = vault.unseal(self._services.settings.secret, f"watermarking {row.folder}", row.sealed)
        return msgspec.json.decode(opened, type=Order)

    def _later(self, row: Watermarking, error: FiligraneError) -> None:
        """Something is away, or this process ends. The row may be away, too: then its time comes all the same."""
        _log.warning("orders.put_off", order=row.id, code=error.code, reason=error.details)
        with suppress(Unavailable):
            due = self._services.clock.now() + _PAUSE
            self._services.database.transact(partial(temporary.again, watermarking_id=row.id, due=due))

    def _fail(self, row: Watermarking, error: FiligraneError) -> None:
        _log.info("orders.refused", order=row.id, code=error.code, reason=error.details)
        ration, taken = limits.watermarking(self._services.settings), self._order(row).taken

        def fail(tx: Session) -> None:
            if temporary.finish(tx, row.id, error.details):
                allowances.give_back(tx, row.account_id, ration, taken)

        self._services.database.transact(fail)
