from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matcher.watermark.errors import RegistrationInvalid
from matcher.watermark.keys import KEY_BYTES, SCHEME
from matcher.watermark.registration import MAX_SMALL, Registration

DATA = Path(__file__).parent / "data"
FULL = Registration(bytes(range(KEY_BYTES)), bytes(range(256)) * 40, 4000, 3000, bytes(range(100, 132)), payload=True, secret=True)
TRANSACTIONAL = replace(FULL, key=bytes(KEY_BYTES), small=b"")


@pytest.mark.parametrize("registration", [FULL, TRANSACTIONAL, replace(FULL, payload=False, secret=False)])
def test_it_comes_back(registration: Registration) -> None:
    assert Registration.from_bytes(registration.to_bytes()) == registration


@pytest.mark.parametrize("version", [1, 2])
def test_every_version_that_ever_was_stays_readable(version: int) -> None:
    read = Registration.from_bytes((DATA / f"version-{version}.registration").read_bytes())
    assert (read.key, read.width, read.height) == (bytes(range(32)), 128, 96)
    assert read.pixel_hash.hex().startswith("86393be4")
    assert read.small[:3] == b"\xff\xd8\xff"
    assert (read.payload, read.secret, read.scheme) == (version == 2, False, 1)


def test_fields_that_a_later_program_adds_are_passed_over() -> None:
    old = FULL.to_bytes()
    assert Registration.from_bytes(_rewritten(old, lambda fields: [*fields, "what is to come"])) == FULL


def test_a_newer_version_is_named() -> None:
    with pytest.raises(RegistrationInvalid, match=r"version 7.* reads 2") as caught:
        Registration.from_bytes(b"FGL7" + FULL.to_bytes()[4:])
    assert caught.value.code == "registration_too_new"


def test_a_newer_way_of_marking_is_named() -> None:
    with pytest.raises(RegistrationInvalid, match=f"scheme {SCHEME + 1}") as caught:
        Registration.from_bytes(_rewritten(FULL.to_bytes(), lambda fields: [*fields[:-1], SCHEME + 1]))
    assert caught.value.code == "registration_too_new"


@given(st.integers(0, 20_000), st.integers(1, 255))
def test_whatever_byte_changes_is_noticed(at: int, flip: int) -> None:
    data = bytearray(FULL.to_bytes())
    data[at % len(data)] ^= flip
    with pytest.raises(RegistrationInvalid):
        Registration.from_bytes(bytes(data))


@given(st.integers(0, 200))
def test_every_cut_is_noticed(length: int) -> None:
    data = TRANSACTIONAL.to_bytes()
    with pytest.raises(RegistrationInvalid):
        Registration.from_bytes(data[: length % len(data)])


@given(st.binary(max_size=100))
def test_other_bytes_are_none(data: bytes) -> None:
    for start in (b"", b"FGL", b"FGL1", b"FGL2"):
        with pytest.raises(RegistrationInvalid):
            Registration.from_bytes(start + data)


@pytest.mark.parametrize(
    "wrong", [{"key": b"short"}, {"pixel_hash": b""}, {"width": 0}, {"height": 65_536}, {"small": bytes(MAX_SMALL + 1)}, {"scheme": 0}]
)
def test_a_registration_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RegistrationInvalid):
        replace(FULL, **wrong)


def test_a_transactional_one_borrows_the_small_picture_of_the_same_original() -> None:
    assert TRANSACTIONAL.transactional
    whole = TRANSACTIONAL.with_original(FULL)
    assert not whole.transactional
    assert whole == replace(TRANSACTIONAL, small=FULL.small)


@pytest.mark.parametrize("other", [TRANSACTIONAL, replace(FULL, pixel_hash=bytes(32))])
def test_it_borrows_nothing_else(other: Registration) -> None:
    with pytest.raises(RegistrationInvalid) as caught:
        TRANSACTIONAL.with_original(other)
    assert caught.value.code == "registration_of_another_picture"


def test_it_is_named_by_its_key_which_it_does_not_show() -> None:
    assert len(FULL.key_id) == 32
    assert FULL.key_id == replace(FULL, small=b"", secret=False).key_id != TRANSACTIONAL.key_id
    assert repr(FULL.key) not in repr(FULL)


def _rewritten(data: bytes, change: Any) -> bytes:
    body = msgspec.msgpack.encode(change(msgspec.msgpack.decode(data[8:])))
    return data[:4] + zlib.crc32(data[:4] + body).to_bytes(4, "big") + body
