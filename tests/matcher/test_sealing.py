"""Accounts' keys: one for each, whoever is first; of no use to who has the database alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from core.errors import InvalidInput, Unavailable
from core.repo import accounts, keys
from core.services import Services
from core.settings import Settings
from matcher.sealing import AccountKeys
from matcher.watermark import lmk
from matcher.watermark.embed import embed
from tests.matcher.pictures import photo


def new_account(services: Services, name: str) -> int:
    with services.database.write() as tx:
        return accounts.create(tx, services.settings.secret, name, now=services.clock.now())[0].id


@pytest.fixture(params=["sqlite", "postgres"])
def both(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))
    return Settings(data=tmp_path / "data", database_url=url, secret_key="only for tests!!")


def test_280_each_account_has_one_key_also_when_many_ask_at_once(both: Settings) -> None:
    with Services.open(both) as services:
        jo, ann = new_account(services, "jo"), new_account(services, "ann")
        processes = [AccountKeys(services) for _ in range(4)]  # none knows what another has in memory
        with ThreadPoolExecutor(4) as threads:
            pems = set(threads.map(lambda known: known.pem(jo), processes))
        assert len(pems) == 1
        assert AccountKeys(services).pem(jo) in pems
        assert AccountKeys(services).pem(ann) not in pems


def test_280_the_database_alone_has_no_usable_key(services: Services, tmp_path: Path) -> None:
    jo = new_account(services, "jo")
    known = AccountKeys(services)
    private = known.private(jo)
    assert isinstance(private, RSAPrivateKey)
    with services.database.read() as tx:
        sealed = keys.find(tx, jo)
    assert sealed is not None
    prime = private.private_numbers().p
    assert prime.to_bytes((prime.bit_length() + 7) // 8) not in sealed
    assert lmk.private_to_bytes(private) not in sealed
    stranger = Settings(data=tmp_path / "other", database_url=str(services.database.url), secret_key="not the same one")
    with Services.open(stranger) as other, pytest.raises(Unavailable) as caught:
        AccountKeys(other).private(jo)
    assert caught.value.code == "secret_changed"


def test_107_280_what_is_sealed_to_an_account_opens_for_it_alone(services: Services) -> None:
    jo, ann = new_account(services, "jo"), new_account(services, "ann")
    known = AccountKeys(services)
    registration = embed(photo(1))[1]
    sealed = lmk.seal(registration, lmk.read_public_key(known.pem(jo).encode()))
    assert known.unseal(jo, sealed) == registration
    for account, data, code in (
        (ann, sealed, "registration_of_another_key"),
        (jo, sealed[:-1], "invalid_registration"),
        (jo, b"no registration", "invalid_registration"),
        (jo, sealed[:4] + b"\xff" + sealed[5:], "registration_too_new"),
    ):
        with pytest.raises(InvalidInput) as caught:
            known.unseal(account, data)
        assert caught.value.code == code
