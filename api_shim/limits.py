"""What an account may do so many times in a period, and the headers that tell it how often it still may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Final

import structlog

from api_shim.errors import TooManyRequests
from core.errors import FiligraneError
from core.models import Account
from core.repo import allowances
from core.repo.allowances import Left, Ration
from core.services import Services
from core.settings import Settings

_WATERMARKING: Final = "X-RateLimit-Watermarking-Daily"

_log = structlog.get_logger()


def watermarking(settings: Settings) -> Ration:
    """Calls of the watermarking endpoint."""
    return Ration("watermarking/daily", settings.watermarking_daily, timedelta(days=1))


def watermarking_headers(services: Services, account: Account) -> dict[str, str]:
    ration = watermarking(services.settings)
    with services.database.read() as tx:
        left = allowances.look(tx, account.id, ration, services.clock.now())
    return {_WATERMARKING: str(ration.limit), f"{_WATERMARKING}-Remaining": str(left.remaining)}


@contextmanager
def taking(services: Services, account_id: int, ration: Ration) -> Iterator[Left]:
    """One of the ration for what is done inside; given back when that fails. Raises TooManyRequests."""
    left = services.database.transact(partial(allowances.take, account_id=account_id, ration=ration, now=services.clock.now()))
    if left.taken is None:
        raise TooManyRequests("the allowance of this period is used up", retry_after=left.wait)
    try:
        yield left
    except BaseException:
        _give_back(services, account_id, ration, left)
        raise


def _give_back(services: Services, account_id: int, ration: Ration, left: Left) -> None:
    assert left.taken is not None, "there is something to give back"
    back = partial(allowances.give_back, account_id=account_id, ration=ration, taken=left.taken)
    try:
        services.database.transact(back)
    except FiligraneError as error:  # what failed is told, not this
        _log.warning("limits.not_given_back", account=account_id, ration=ration.name, reason=error.details)
