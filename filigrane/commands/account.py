"""`filigrane account`."""

from __future__ import annotations

import argparse
import sys

from core import telemetry
from core.repo import accounts
from core.services import Services
from filigrane.commands import result, settings_of


def create(given: argparse.Namespace) -> int:
    telemetry.configure("command")
    password = sys.stdin.readline().rstrip("\n") if given.password == "-" else given.password  # noqa: S105
    with Services.open(settings_of(given)) as services, services.database.write() as tx:
        account, token = accounts.create(
            tx, services.settings.secret, given.name, password=password, email=given.email, now=services.clock.now()
        )
        made = {"username": account.username, "token": token, "home": account.home}
    result(made)
    return 0
