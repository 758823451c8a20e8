"""What the commands do. Here: who calls, and what all of them print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from core.settings import Settings, load
from filigrane.serve import running_on

if TYPE_CHECKING:
    from api_shim.links import Links
    from core.models import Account
    from core.services import Services


@dataclass(frozen=True, slots=True)
class Caller:
    """Who uses the command line, with everything opened."""

    services: Services
    account: Account
    links: Links


def settings_of(given: argparse.Namespace) -> Settings:
    """The environment's settings with `--data` and `--metrics` over them, the data folder absolute. Raises InvalidInput."""
    settings = load()
    metrics = getattr(given, "metrics", None) or settings.metrics_listen
    return settings.model_copy(update={"data": (given.data or settings.data).resolve(), "metrics_listen": metrics})


@contextmanager
def opened(given: argparse.Namespace) -> Iterator[Services]:
    """What a command needs that is about no account. Raises Unavailable: database, store or bus do not answer."""
    import logging

    from core import telemetry
    from core.services import Services

    telemetry.configure("command", level=logging.WARNING)
    with Services.open(settings_of(given)) as services:
        yield services


@contextmanager
def calling(given: argparse.Namespace) -> Iterator[Caller]:
    """Opens what a command needs, for the account that it names.

    Raises:
        NotFound: no such account.
        Unavailable: database, store or bus do not answer.
    """
    import logging

    from api_shim.links import Links
    from core import telemetry
    from core.services import Services

    telemetry.configure("command", level=logging.WARNING)
    settings = settings_of(given)
    serving = running_on(settings.data)
    if serving is not None and serving.url and "public_url" not in settings.model_fields_set:
        settings = settings.model_copy(update={"public_url": serving.url})
    with Services.open(settings) as services:
        account = _account(services, given.account)
        yield Caller(services, account, Links(settings.public_url, settings.public_url, settings.secret))


def _account(services: Services, name: str) -> Account:
    from core.repo import accounts

    if name == accounts.LOCAL:
        return services.database.transact(lambda tx: accounts.ensure_local(tx, services.settings.secret, services.clock.now())[0])
    with services.database.read() as tx:
        return accounts.by_name(tx, name)


def result(value: object) -> None:
    """A command's result: JSON on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
    sys.stdout.flush()


def say(line: str) -> None:
    """A line for the person at the terminal, on stderr."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
