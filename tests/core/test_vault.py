"""What is sealed opens with the same secret for the same purpose, and with nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import vault
from core.errors import Unavailable

SECRET = b"only for tests!!"


@given(st.binary(max_size=200))
def test_what_is_sealed_opens_again(data: bytes) -> None:
    sealed = vault.seal(SECRET, "a", data)
    assert vault.unseal(SECRET, "a", sealed) == data
    assert vault.seal(SECRET, "a", data) != sealed
    assert len(data) < 8 or data not in sealed


@given(st.integers(0, 27), st.integers(1, 255))
def test_nothing_else_opens_it(place: int, change: int) -> None:
    sealed = vault.seal(SECRET, "a", b"")
    changed = bytearray(sealed)
    changed[place] ^= change
    others = [(SECRET, "a", bytes(changed)), (SECRET, "b", sealed), (b"another" + SECRET, "a", sealed), (SECRET, "a", b"")]
    for secret, purpose, data in others:
        with pytest.raises(Unavailable) as caught:
            vault.unseal(secret, purpose, data)
        assert caught.value.code == "secret_changed"
