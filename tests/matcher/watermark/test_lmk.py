from __future__ import annotations

import base64
from collections import Counter
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from matcher.watermark import lmk
from matcher.watermark.errors import KeyInvalid, RegistrationInvalid
from matcher.watermark.registration import Registration
from tests.matcher.watermark.test_registration import DATA, FULL, TRANSACTIONAL

_PRIVATE = lmk.private_from_bytes((DATA / "key.der").read_bytes())
_PUBLIC = _PRIVATE.public_key()
_OTHER = generate_private_key(65537, lmk.MIN_BITS)
_SEALED = lmk.seal(FULL, _PUBLIC)
_HEADER = 19


@pytest.mark.parametrize("registration", [FULL, TRANSACTIONAL])
def test_what_was_sealed_comes_back(registration: Registration) -> None:
    assert lmk.unseal(lmk.seal(registration, _PUBLIC), _PRIVATE) == registration


def test_every_version_that_ever_was_stays_readable() -> None:
    read = lmk.unseal((DATA / "version-1.lmk").read_bytes(), _PRIVATE)
    assert (read.key, read.width, read.height, read.payload) == (bytes(range(32)), 128, 96, True)


def test_a_transactional_one_is_small() -> None:
    assert _PUBLIC.key_size == lmk.KEY_BITS
    assert len(lmk.seal(replace(TRANSACTIONAL, width=65_535, height=65_535), _PUBLIC)) <= 512


def test_nothing_can_be_told_from_one() -> None:
    body = lmk.seal(replace(FULL, small=b"\xff\xd8\xff" + bytes(40_000)), _PUBLIC)[_HEADER:]
    counts = Counter(body)
    expected = len(body) / 256
    chi_squared = sum((counts[value] - expected) ** 2 / expected for value in range(256))
    assert chi_squared < 255 + 6.5 * (2 * 255) ** 0.5  # a chance of about 1e-8 for random bytes
    assert FULL.key not in body
    assert FULL.pixel_hash not in body
    assert bytes(16) not in body


def test_no_two_are_alike() -> None:
    again = lmk.seal(FULL, _PUBLIC)
    assert sum(a == b for a, b in zip(again[_HEADER:], _SEALED[_HEADER:], strict=True)) < len(again) / 64


@given(st.integers(0, 20_000), st.integers(1, 255))
def test_whatever_byte_changes_is_noticed(at: int, flip: int) -> None:
    data = bytearray(_SEALED)
    data[at % len(data)] ^= flip
    with pytest.raises(RegistrationInvalid):
        lmk.unseal(bytes(data), _PRIVATE)


@given(st.integers(0, 20_000))
def test_every_cut_is_noticed(length: int) -> None:
    with pytest.raises(RegistrationInvalid):
        lmk.unseal(_SEALED[: length % len(_SEALED)], _PRIVATE)


@given(st.binary(max_size=600))
def test_other_bytes_are_none(data: bytes) -> None:
    for start in (b"", b"FLMK", b"FLMK\x01" + lmk.fingerprint(_PUBLIC)):
        with pytest.raises(RegistrationInvalid):
            lmk.unseal(start + data, _PRIVATE)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_SEALED + b"\n", "registration_damaged"),
        (_SEALED[:-1], "registration_damaged"),
        (_SEALED[:12], "registration_damaged"),
        (_SEALED[:4] + b"\0" + _SEALED[5:], "registration_damaged"),
        (_SEALED[:-1] + bytes([_SEALED[-1] ^ 1]), "registration_damaged"),
        (_SEALED[:20] + bytes([_SEALED[20] ^ 1]) + _SEALED[21:], "registration_damaged"),
        (b"FLMK\x02" + _SEALED[5:], "registration_too_new"),
        (lmk.seal(FULL, _OTHER.public_key()), "registration_of_another_key"),
        (FULL.to_bytes(), "not_a_registration"),
        (b"", "not_a_registration"),
    ],
)
def test_it_says_what_is_wrong(data: bytes, code: str) -> None:
    with pytest.raises(RegistrationInvalid) as caught:
        lmk.unseal(data, _PRIVATE)
    assert caught.value.code == code


def test_one_for_another_account_stays_closed_where_it_claims_to_be_for_this_one() -> None:
    sealed = lmk.seal(FULL, generate_private_key(65537, lmk.KEY_BITS).public_key())
    claims = sealed[:5] + lmk.fingerprint(_PUBLIC) + sealed[13:]
    with pytest.raises(RegistrationInvalid) as caught:
        lmk.unseal(claims, _PRIVATE)
    assert caught.value.code == "registration_damaged"


def _armored(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()


_PKCS1 = _PUBLIC.public_bytes(Encoding.DER, PublicFormat.PKCS1)
_SPKI = lmk.public_to_der(_PUBLIC)


@pytest.mark.parametrize(
    "data",
    [
        _PKCS1,
        _SPKI,
        lmk.public_to_pem(_PUBLIC).encode(),
        _armored("PUBLIC KEY", _SPKI),
        _armored("RSA PUBLIC KEY", _SPKI),
        b"a comment\r\n" + _armored("RSA PUBLIC KEY", _PKCS1).replace(b"\n", b"\r\n"),
    ],
)
def test_a_public_key_is_read_in_every_form_that_it_comes_in(data: bytes) -> None:
    assert lmk.read_public_key(data).public_numbers() == _PUBLIC.public_numbers()


def test_a_public_key_is_written_as_the_api_shows_it() -> None:
    pem = lmk.public_to_pem(_PUBLIC)
    assert pem.startswith("-----BEGIN RSA PUBLIC KEY-----\n")
    assert base64.b64decode("".join(pem.splitlines()[1:-1])) == _PKCS1


def _weak() -> RSAPublicKey:
    return generate_private_key(65537, 1024).public_key()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_a_key"),
        (b"no key", "not_a_key"),
        (_SPKI[:-1], "not_a_key"),
        (_armored("RSA PUBLIC KEY", _SPKI).replace(b"A", b"*"), "not_a_key"),
        (ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), "not_a_key"),
        (lmk.public_to_pem(_weak()).encode(), "key_too_short"),
    ],
)
def test_other_keys_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(KeyInvalid) as caught:
        lmk.read_public_key(data)
    assert caught.value.code == code


def test_a_private_key_comes_back_from_its_bytes() -> None:
    key = lmk.new_private_key()
    assert key.key_size == lmk.KEY_BITS
    assert lmk.private_from_bytes(lmk.private_to_bytes(key)).private_numbers() == key.private_numbers()
    with pytest.raises(KeyInvalid):
        lmk.private_from_bytes(b"no key")
