"""LMK, the registration as it travels: sealed to the RSA key of an account. docs/lmk.md has the format byte by byte.

RSA-OAEP (RFC 8017) with SHA-256 wraps a key and a nonce that are used once, AES-256-GCM (NIST SP 800-38D) encrypts with them; what stands
before the ciphertext is authenticated, too.
"""

from __future__ import annotations

import binascii
import hashlib
import re
import secrets
import struct
from typing import Final

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from matcher.watermark.errors import KeyInvalid, RegistrationInvalid
from matcher.watermark.registration import Registration

VERSION: Final = 1
KEY_BITS: Final = 3072
MIN_BITS: Final = 2048
MAX_BITS: Final = 8192
MAX_LENGTH: Final = 1 << 20
"""Bytes of an LMK at most."""
_MAGIC: Final = b"FLMK"
_HEADER: Final = struct.Struct(">4sB8sHI")
_AES_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_FINGERPRINT_BYTES: Final = 8
_PEM: Final = re.compile(rb"-----BEGIN (?:RSA )?PUBLIC KEY-----(.*?)-----END (?:RSA )?PUBLIC KEY-----", re.DOTALL)


def seal(registration: Registration, public_key: RSAPublicKey) -> bytes:
    """The LMK that only the holder of the private key opens; other bytes each time."""
    _check_size(public_key)
    once = secrets.token_bytes(_AES_BYTES + _NONCE_BYTES)
    wrapped = public_key.encrypt(once, _oaep())
    body = registration.to_bytes()
    head = _HEADER.pack(_MAGIC, VERSION, fingerprint(public_key), len(wrapped), len(body) + 16) + wrapped
    return head + AESGCM(once[:_AES_BYTES]).encrypt(once[_AES_BYTES:], body, head)


def unseal(data: bytes, private_key: RSAPrivateKey) -> Registration:
    """The registration in an LMK. Raises RegistrationInvalid: whatever was changed in it, it is refused."""
    head, wrapped, body = _parts(data, private_key.public_key())
    try:
        once = private_key.decrypt(wrapped, _oaep())
        plain = AESGCM(once[:_AES_BYTES]).decrypt(once[_AES_BYTES:], body, head + wrapped)
    except (InvalidTag, ValueError) as error:
        raise RegistrationInvalid("the LMK is damaged") from error
    return Registration.from_bytes(plain)


def is_sealed(data: bytes) -> bool:
    """Whether the bytes say that they are an LMK, of whatever version."""
    return data[:4] == _MAGIC


def fingerprint(public_key: RSAPublicKey) -> bytes:
    """The first 8 bytes of the SHA-256 of the key's SubjectPublicKeyInfo in DER: what an LMK says of whom it is for."""
    return hashlib.sha256(public_to_der(public_key)).digest()[:_FINGERPRINT_BYTES]


def new_private_key() -> RSAPrivateKey:
    """An account's key, 3072 bit: 128 bits of security (NIST SP 800-57) for a quarter of a second, once."""
    return generate_private_key(65537, KEY_BITS)


def private_to_bytes(key: RSAPrivateKey) -> bytes:
    """PKCS#8 in DER, not encrypted."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def private_from_bytes(data: bytes) -> RSAPrivateKey:
    """What `private_to_bytes` wrote. Raises KeyInvalid."""
    try:
        key = load_der_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyInvalid(f"not a private key: {error}") from error
    if not isinstance(key, RSAPrivateKey):
        raise KeyInvalid("not an RSA key")
    return key


def public_to_pem(key: RSAPublicKey) -> str:
    """PKCS#1 in PEM, between lines of `RSA PUBLIC KEY`."""
    return key.public_bytes(Encoding.PEM, PublicFormat.PKCS1).decode("ascii")


def public_to_der(key: RSAPublicKey) -> bytes:
    """SubjectPublicKeyInfo in DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_public_key(data: bytes) -> RSAPublicKey:
    """An RSA key of 2048 to 8192 bit in DER or PEM, PKCS#1 or SubjectPublicKeyInfo, whichever of both the PEM says. Raises KeyInvalid."""
    try:
        key = load_der_public_key(_der(data))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyInvalid(f"not a public key: {error}") from error
    if not isinstance(key, RSAPublicKey):
        raise KeyInvalid("not an RSA key")
    _check_size(key)
    return key


def _der(data: bytes) -> bytes:
    armored = _PEM.search(data)
    # binascii.Error is a ValueError
    return binascii.a2b_base64(b"".join(armored[1].split()), strict_mode=True) if armored else data


def _check_size(key: RSAPublicKey) -> None:
    if key.key_size < MIN_BITS:
        raise KeyInvalid(f"the key has {key.key_size} bit, at least {MIN_BITS} are needed", code="key_too_short")
    if key.key_size > MAX_BITS:
        raise KeyInvalid(f"the key has {key.key_size} bit, at most {MAX_BITS} are accepted", code="key_too_long")


def _oaep() -> OAEP:
    return OAEP(MGF1(SHA256()), SHA256(), None)


def _parts(data: bytes, public_key: RSAPublicKey) -> tuple[bytes, bytes, bytes]:
    """Header, wrapped key and ciphertext. Raises RegistrationInvalid."""
    if not is_sealed(data):
        raise RegistrationInvalid("not an LMK", code="not_a_registration")
    if data[4:5] > bytes([VERSION]):
        raise RegistrationInvalid(f"an LMK of version {data[4]}, this program reads {VERSION}", code="registration_too_new")
    if len(data) < _HEADER.size or len(data) > MAX_LENGTH:
        raise RegistrationInvalid("the LMK is damaged: it has not the length of one")
    _, version, whose, wrapped, body = _HEADER.unpack_from(data)
    end = _HEADER.size + wrapped
    if version != VERSION or len(data) != end + body:
        raise RegistrationInvalid("the LMK is damaged: it has not the length that it says")
    if whose != fingerprint(public_key):
        raise RegistrationInvalid("the LMK is sealed to another key", code="registration_of_another_key")
    return data[: _HEADER.size], data[_HEADER.size : end], data[end:]
