"""Pictures that are marked while nobody waits. An order is a row: it outlives the process that took it, and any API process may do it.

The key is drawn when the order is taken, so an order that is done twice (a process was thought dead) has the same result twice.
"""

from __future__ import annotations

import secrets
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
from core.errors import FiligraneError, Unavailable
from core.models import Watermarking
from core.repo import allowances, temporary
from core.services import Services
from matcher import marking
from matcher.decode import Decoders
from matcher.sealing import AccountKeys
from matcher.watermark.keys import KEY_BYTES

PATIENCE: Final = timedelta(seconds=60)
"""After so long another process takes up what one has not finished."""
TRIES: Final = 3
_PAUSE: Final = timedelta(seconds=5)
_LOOK_SECONDS: Final = 2.0

_log = structlog.get_logger()


class Order(msgspec.Struct, frozen=True):
    """How to mark; `taken`: the beginning of the window whose ration it counts in."""

    key: bytes
    payload: int | None
    secret: str | None
    transactional: bool
    taken: datetime


def new_key() -> bytes:
    return secrets.token_bytes(KEY_BYTES)


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
        self._stop.set()
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
        row = self._services.database.transact(partial(temporary.claim, now=self._services.clock.now(), patience=PATIENCE))
        if row is None:
            return False
        try:
            self._mark(row)
        except Unavailable as error:
            self._later(row, error)
        except FiligraneError as error:
            self._fail(row, error)
        return True

    def _mark(self, row: Watermarking) -> None:
        """Raises what `marking.mark` does, ObjectMissing, Unavailable."""
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

    def _later(self, row: Watermarking, error: Unavailable) -> None:
        """Something is away. The row may be, too: then its time comes all the same."""
        _log.warning("orders.put_off", order=row.id, code=error.code, reason=error.details)
        with suppress(Unavailable):
            due = self._services.clock.now() + _PAUSE
            self._services.database.transact(partial(temporary.again, watermarking_id=row.id, due=due))

    def _fail(self, row: Watermarking, error: FiligraneError) -> None:
        """What killed its decoder may have met with bad luck, and is tried again."""
        if error.code == "decoder_died" and row.tries < TRIES:
            return self._later(row, Unavailable(error.details, code=error.code))
        _log.info("orders.refused", order=row.id, code=error.code, reason=error.details)
        ration, taken = limits.watermarking(self._services.settings), self._order(row).taken

        def fail(tx: Session) -> None:
            if temporary.finish(tx, row.id, error.details):
                allowances.give_back(tx, row.account_id, ration, taken)

        self._services.database.transact(fail)
        return None
