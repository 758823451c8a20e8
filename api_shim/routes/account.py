"""The account behind the token, and the token behind a password."""

from __future__ import annotations

from typing import Annotated

import msgspec

from api_shim import bodies, schemas
from api_shim.endpoint import Answer, Call
from core.errors import Unauthorized
from core.repo import accounts, matches, media


class Credentials(msgspec.Struct):
    username: Annotated[str, msgspec.Meta(min_length=1, max_length=254)]
    password: Annotated[str, msgspec.Meta(max_length=1024)]


def show(call: Call) -> Answer:
    account = call.account
    with call.database.read() as tx:
        image_count, disk_usage = media.totals(tx, account.id)
        surplus = matches.surplus(tx, account.id)
    return Answer(
        schemas.Account(
            username=account.username,
            email=account.email,
            full_name=account.full_name,
            service_plan="self-hosted",
            incidents=None,
            image_count=image_count,
            image_quota=account.image_quota,
            disk_usage=disk_usage,
            disk_quota=account.disk_quota,
            home=account.home,
            matches_not_listed=surplus,
        )
    )


def public_key(call: Call) -> Answer:
    """The key that the account's registrations are sealed to; made when it is first asked for."""
    return Answer(schemas.PublicKey(call.state.keys.pem(call.account.id)))


def token(call: Call) -> Answer:
    """The account's token, for its user name (or e-mail address) and password."""
    given = bodies.parse(Credentials, call.fields())
    address = call.request.client.host if call.request.client else ""
    call.state.attempts.check(address)
    try:
        with call.database.read() as tx:
            account = accounts.check_password(tx, given.username, given.password)
    except Unauthorized:
        call.state.attempts.failed(address)
        raise
    return Answer(schemas.Token(accounts.token_of(call.links.secret, account)))
