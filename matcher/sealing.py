"""Accounts' RSA keys, and what is sealed to them. The private key never leaves the server, and lies in the database encrypted."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from core import vault
from core.errors import InvalidInput
from core.repo import keys
from core.services import Services
from matcher.watermark import lmk
from matcher.watermark.errors import RegistrationInvalid
from matcher.watermark.registration import Registration

_KEPT: Final = 1_000
_CODES: Final = {
    "registration_too_new": "registration_too_new",
    "registration_of_another_key": "registration_of_another_key",
}
"""All others are `invalid_registration`."""


class AccountKeys:
    """Each account's key, made when it is first needed. Thread-safe."""

    def __init__(self, services: Services, make: Callable[[], bytes] | None = None) -> None:
        """`make`: a new private key as `lmk.private_to_bytes` writes it; it takes a quarter of a second of processor time."""
        self._services = services
        self._make = make or new_key
        self.private = lru_cache(_KEPT)(self._private)
        """The account's key. Raises Unavailable: the database is away, or was written under another FILIGRANE_SECRET_KEY."""

    def pem(self, account_id: int) -> str:
        """The public key, PKCS#1 in PEM. Raises Unavailable."""
        return lmk.public_to_pem(self.private(account_id).public_key())

    def unseal(self, account_id: int, data: bytes) -> Registration:
        """What is in an LMK that is sealed to the account's key.

        Raises:
            InvalidInput: codes invalid_registration, registration_of_another_key, registration_too_new.
            Unavailable: as above.
        """
        try:
            return lmk.unseal(data, self.private(account_id))
        except RegistrationInvalid as error:
            raise InvalidInput(error.details, code=_CODES.get(error.code, "invalid_registration")) from error

    def _private(self, account_id: int) -> RSAPrivateKey:
        with self._services.database.read() as tx:
            sealed = keys.find(tx, account_id)
        purpose, secret = f"account key {account_id}", self._services.settings.secret
        if sealed is None:  # made while no transaction is open; whoever is first in the database has made the one that counts
            drawn = vault.seal(secret, purpose, self._make())
            sealed = self._services.database.transact(
                partial(keys.add, account_id=account_id, sealed=drawn, now=self._services.clock.now())
            )
        return lmk.private_from_bytes(vault.unseal(secret, purpose, sealed))


def new_key() -> bytes:
    """A new private key, in bytes: what goes between processes."""
    return lmk.private_to_bytes(lmk.new_private_key())
