"""`filigrane account`."""

from __future__ import annotations

import argparse
import sys

from sqlalchemy.orm import Session

from core import telemetry
from core.models import Account
from core.repo import accounts, media
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


def quota(given: argparse.Namespace) -> int:
    """Sets what is named, and tells all of it. What is there already stays, also above a new maximum."""
    telemetry.configure("command")

    def change(tx: Session) -> dict[str, int | str | None]:
        account = accounts.by_name(tx, given.name)
        account.image_quota = getattr(given, "images", account.image_quota)
        account.disk_quota = getattr(given, "bytes", account.disk_quota)
        images, size = media.totals(tx, account.id)
        return {
            "username": account.username,
            "image_quota": account.image_quota,
            "image_count": images,
            "disk_quota": account.disk_quota,
            "disk_usage": size,
        }

    with Services.open(settings_of(given)) as services:
        result(services.database.transact(change))
    return 0
