"""`filigrane account`."""

from __future__ import annotations

import argparse
import sys

from core import telemetry
from core.repo import accounts
from core.services import Services
from filigrane.commands import result, settings_of


def create(given: argparse.Namespace) -> int:
    """The account `local` may be there already: its token is told all the same, since nobody else could tell it."""
    telemetry.configure("command")
    password = sys.stdin.readline().rstrip("\n") if given.password == "-" else given.password  # noqa: S105
    with Services.open(settings_of(given)) as services, services.database.write() as tx:
        secret, now = services.settings.secret, services.clock.now()
        if given.name == accounts.LOCAL and password is None:
            account, token = accounts.ensure_local(tx, secret, now)
        else:
            operator = given.name == accounts.LOCAL
            account, token = accounts.create(tx, secret, given.name, password=password, email=given.email, operator=operator, now=now)
        made = {"username": account.username, "token": token, "home": account.home}
    result(made)
    return 0
