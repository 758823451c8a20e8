"""Accounts, tokens and passwords."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import Conflict, InvalidInput, NotFound, Unauthorized
from core.repo import accounts, media
from core.services import Services

NOW = datetime(2026, 11, 23, tzinfo=UTC)
SECRET = b"secret"


def test_an_account_has_a_home_and_a_token(services: Services) -> None:
    with services.database.write() as tx:
        account, token = accounts.create(tx, SECRET, "jo", now=NOW)
    with services.database.read() as tx:
        assert accounts.by_token(tx, token).id == account.id
        assert accounts.by_name(tx, "jo").id == account.id
        assert media.get(tx, account.id, "jo").type == "folder"
    assert accounts.token_of(SECRET, account) == token
    assert token not in (account.token_hash, account.password_hash)


def test_names(services: Services) -> None:
    with services.database.write() as tx:
        accounts.create(tx, SECRET, "api.demo", now=NOW)
        with pytest.raises(Conflict):
            accounts.create(tx, SECRET, "api.demo", now=NOW)
        for name in ("", "a/b", ".", "_move", "a b", "x" * 151, "é"):
            with pytest.raises(InvalidInput):
                accounts.create(tx, SECRET, name, now=NOW)
        with pytest.raises(NotFound):
            accounts.by_name(tx, "nobody")


def test_another_generation_is_another_token(services: Services) -> None:
    with services.database.write() as tx:
        account, token = accounts.create(tx, SECRET, "jo", now=NOW)
        account.token_generation += 1
        assert accounts.token_of(SECRET, account) != token
        assert accounts.token_of(b"other", account) != token


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(st.one_of(st.text(), st.from_regex(r"fil1_[0-9a-f]{48}", fullmatch=True)))
def test_no_other_text_is_a_token(services: Services, text: str) -> None:
    with services.database.read() as tx, pytest.raises(Unauthorized):
        accounts.by_token(tx, text)


def test_passwords(services: Services) -> None:
    with services.database.write() as tx:
        account, _ = accounts.create(tx, SECRET, "jo", password="open sesame", email="Jo@example.org", now=NOW)
        accounts.create(tx, SECRET, "ann", email="", now=NOW)
        accounts.create(tx, SECRET, "bob", password="x", email="two@example.org", now=NOW)
        accounts.create(tx, SECRET, "eve", password="x", email="two@example.org", now=NOW)
    with services.database.read() as tx:
        assert accounts.check_password(tx, "jo", "open sesame").id == account.id
        assert accounts.check_password(tx, "jo@EXAMPLE.org", "open sesame").id == account.id
        for name, password in (("jo", "x"), ("nobody", "x"), ("ann", ""), ("", ""), ("two@example.org", "x")):
            with pytest.raises(Unauthorized):
                accounts.check_password(tx, name, password)


def test_the_local_account_is_made_once(services: Services) -> None:
    with services.database.write() as tx:
        account, token = accounts.ensure_local(tx, SECRET, NOW)
        again, same = accounts.ensure_local(tx, SECRET, NOW)
    assert (account.id, token) == (again.id, same)
    assert account.operator


def test_what_does_not_fit_is_refused(services: Services) -> None:
    with services.database.write() as tx:
        assert accounts.create(tx, SECRET, "fits", now=NOW, email="é" * 254, full_name="é" * 254)[0].email == "é" * 254
        with pytest.raises(InvalidInput):
            accounts.create(tx, SECRET, "long", now=NOW, email="x" * 255)
        with pytest.raises(InvalidInput):
            accounts.create(tx, SECRET, "long", now=NOW, full_name="x" * 255)
