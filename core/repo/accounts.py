"""Accounts and their tokens.

A token is derived (prefix, HMAC of account and generation, checksum), so it can be shown again to its owner without being stored: the
database keeps its hash only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Collection
from datetime import datetime
from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from core.errors import Conflict, InvalidInput, NotFound, Unauthorized
from core.models import Account, Media

LOCAL: Final = "local"
"""The account of who uses the command line without naming one."""
_PREFIX: Final = "fil1_"
_TOKEN: Final = re.compile(rf"{_PREFIX}[0-9a-f]{{40}}[0-9a-f]{{8}}")
_USERNAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.@+_-]{0,149}")
_LINE: Final = 254
_hasher: Final = PasswordHasher()


def create(
    tx: Session,
    secret: bytes,
    username: str,
    *,
    password: str | None = None,
    email: str = "",
    full_name: str = "",
    operator: bool = False,
    now: datetime,
) -> tuple[Account, str]:
    """A new account with its home folder, and its token.

    Raises:
        InvalidInput: the name cannot be a home directory, or something is too long.
        Conflict: the name is taken.
    """
    if not _USERNAME.fullmatch(username):
        raise InvalidInput("a user name is 1 to 150 of: letters, digits, . @ + _ - (a letter or digit first)", code="invalid_username")
    if max(len(email), len(full_name)) > _LINE:
        raise InvalidInput(f"an e-mail address and a name have at most {_LINE} characters", code="too_long")
    if _named(tx, username) is not None:
        raise Conflict(f"the user name {username} is taken", code="username_taken")
    password_hash = None if password is None else _hasher.hash(password)
    account = Account(username=username, email=email, full_name=full_name, password_hash=password_hash, operator=operator, created=now)
    return _added(tx, secret, account, now)


def _added(tx: Session, secret: bytes, account: Account, now: datetime) -> tuple[Account, str]:
    account.home = account.username
    account.token_hash = secrets.token_hex(32)  # until the id is known
    tx.add(account)
    tx.flush()
    token = token_of(secret, account)
    account.token_hash = _digest(token)
    tx.add(Media(account_id=account.id, parent_id=None, path=account.home, type="folder", created=now))
    tx.flush()
    return account, token


def ensure_local(tx: Session, secret: bytes, now: datetime) -> tuple[Account, str]:
    """The account `local`, an operator's, made on first use, and its token."""
    account = _named(tx, LOCAL)
    if account is None:
        # without a second look: who was quicker is met as a violation, after which `transact` tries again
        return _added(tx, secret, Account(username=LOCAL, email="", full_name="", operator=True, created=now), now)
    return account, token_of(secret, account)


def token_of(secret: bytes, account: Account) -> str:
    """The account's token of its present generation: prefix, 160 bits, CRC-32 (a typing error is seen without the database)."""
    message = f"token/{account.id}/{account.token_generation}".encode()
    body = hmac.new(secret, message, hashlib.sha256).hexdigest()[:40]
    return f"{_PREFIX}{body}{_checksum(body)}"


def by_token(tx: Session, token: str) -> Account:
    """Raises Unauthorized: no token that is valid now."""
    if _TOKEN.fullmatch(token) and _checksum(token[len(_PREFIX) : -8]) == token[-8:]:
        account = tx.scalar(select(Account).where(Account.token_hash == _digest(token)))
        if account is not None:
            return account
    raise Unauthorized("this token is not valid", code="invalid_token")


def by_id(tx: Session, account_id: int) -> Account:
    """Raises NotFound."""
    account = tx.get(Account, account_id)
    if account is None:
        raise NotFound("there is no such account")
    return account


def registry_versions(tx: Session, only: Collection[int] | None = None) -> dict[int, int]:
    """Account id -> version of its registry, of every account or of these only."""
    found = select(Account.id, Account.registry_version).order_by(Account.id)
    if only is not None:
        found = found.where(Account.id.in_(only))
    return {row.id: row.registry_version for row in tx.execute(found)}


def by_name(tx: Session, username: str) -> Account:
    """Raises NotFound."""
    account = _named(tx, username)
    if account is None:
        raise NotFound(f"no account {username}", code="account_not_found")
    return account


def check_password(tx: Session, username: str, password: str) -> Account:
    """The account of this user name (or, when it belongs to one account only, e-mail address) and password.

    An unknown user costs the same time as a wrong password.

    Raises:
        Unauthorized: the same for both.
    """
    found = tx.scalars(select(Account).where(or_(Account.username == username, func.lower(Account.email) == username.lower()))).all()
    named = [account for account in found if account.username == username] or (found if len(found) == 1 and username else [])
    account = named[0] if named else None
    stored = account.password_hash if account is not None else None
    if not _verify(stored or _nobodys_hash(), password) or account is None or stored is None:
        raise Unauthorized("user name or password are wrong", code="invalid_credentials")
    return account


def _named(tx: Session, username: str) -> Account | None:
    return tx.scalar(select(Account).where(Account.username == username))


def _verify(stored: str, password: str) -> bool:
    try:
        return _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        return False


@cache
def _nobodys_hash() -> str:
    return _hasher.hash(secrets.token_hex())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
