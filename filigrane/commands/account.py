"""`filigrane account`."""

from __future__ import annotations

import argparse
import sys

from sqlalchemy.orm import Session

from core import telemetry
from core.models import Account
from core.repo import accounts
from core.services import Services
from filigrane.commands import result, settings_of


def create(given: argparse.Namespace) -> int:
    """The account `local` may be there already: its token is told all the same, since nobody else could tell it."""
    telemetry.configure("command")
    password = sys.stdin.readline().rstrip("\n") if given.password == "-" else given.password  # noqa: S105
    with Services.open(settings_of(given)) as services:
        secret, now = services.settings.secret, services.clock.now()

        def make(tx: Session) -> tuple[Account, str]:
            if given.name == accounts.LOCAL and password is None:
                return accounts.ensure_local(tx, secret, now)
            operator = given.name == accounts.LOCAL
            return accounts.create(tx, secret, given.name, password=password, email=given.email, operator=operator, now=now)

        account, token = services.database.transact(make)
    result({"username": account.username, "token": token, "home": account.home})
    return 0
