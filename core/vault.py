"""What lies in the database and must be of no use to who copies it: encrypted with keys that are derived from FILIGRANE_SECRET_KEY.

AES-256-GCM (NIST SP 800-38D) under a key of HKDF-SHA256 (RFC 5869) for each purpose; what is sealed for one opens for no other.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from core.errors import Unavailable

_NONCE: Final = 12


def seal(secret: bytes, purpose: str, data: bytes) -> bytes:
    """Another value each time."""
    nonce = os.urandom(_NONCE)
    return nonce + _cipher(secret, purpose).encrypt(nonce, data, None)


def unseal(secret: bytes, purpose: str, sealed: bytes) -> bytes:
    """Raises Unavailable: sealed under another secret, for another purpose, or damaged."""
    try:
        return _cipher(secret, purpose).decrypt(sealed[:_NONCE], sealed[_NONCE:], None)
    except (InvalidTag, ValueError) as error:
        raise Unavailable(
            "what the database keeps encrypted was not encrypted with this FILIGRANE_SECRET_KEY", code="secret_changed", retry_after=60
        ) from error


def _cipher(secret: bytes, purpose: str) -> AESGCM:
    return AESGCM(HKDF(SHA256(), 32, None, f"filigrane vault {purpose}".encode()).derive(secret))
