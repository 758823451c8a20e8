"""The registration: all that detection needs of one marked copy. docs/lmk.md has its format byte by byte."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from matcher.watermark.errors import RegistrationInvalid
from matcher.watermark.keys import KEY_BYTES, SCHEME

VERSION: Final = 2
MAX_SMALL: Final = 256 << 10
"""Bytes of a small picture at most. What `embed` makes is far below."""
_MAGIC: Final = b"FGL"
_HASH_BYTES: Final = 32
_MAX_SIDE: Final = 65_535


@dataclass(frozen=True, slots=True)
class Registration:
    """Whoever holds it can detect the mark, unless that takes a secret, too.

    `key`: 32 bytes; `small`: an encoded small picture of the original, b"" in a transactional registration; `width`, `height`: pixels of
    the upright original; `pixel_hash`: 32 bytes, of its pixels (`matcher.pixels.pixel_hash`); `payload`: the mark carries a number;
    `secret`: detection takes a passphrase; `scheme`: the way of marking. Raises RegistrationInvalid for anything else.
    """

    key: bytes = field(repr=False)
    small: bytes = field(repr=False)
    width: int
    height: int
    pixel_hash: bytes
    payload: bool = False
    secret: bool = False
    scheme: int = SCHEME

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES or len(self.pixel_hash) != _HASH_BYTES:
            raise RegistrationInvalid(f"a registration has a key of {KEY_BYTES} and a pixel hash of {_HASH_BYTES} bytes")
        if len(self.small) > MAX_SMALL:
            raise RegistrationInvalid(f"the small picture of a registration has at most {MAX_SMALL} bytes")
        if not (0 < self.width <= _MAX_SIDE and 0 < self.height <= _MAX_SIDE):
            raise RegistrationInvalid(f"a registered picture has sides of 1 to {_MAX_SIDE} pixels")
        if not 0 < self.scheme <= SCHEME:
            raise RegistrationInvalid(f"a mark of scheme {self.scheme}, this program knows {SCHEME}", code="registration_too_new")

    @property
    def key_id(self) -> str:
        """32 hex digits that name the key without giving it away."""
        return hashlib.sha256(b"filigrane key id" + self.key).hexdigest()[:32]

    @property
    def transactional(self) -> bool:
        """Whether it takes another registration of the same original to detect."""
        return not self.small

    def with_original(self, other: Registration) -> Registration:
        """This one with the small picture of another registration of the same original. Raises RegistrationInvalid."""
        if other.pixel_hash != self.pixel_hash or other.transactional:
            raise RegistrationInvalid("this takes a full registration of the same original", code="registration_of_another_picture")
        return replace(self, small=other.small)

    def to_bytes(self) -> bytes:
        """Versioned, with a checksum. Not encrypted: `lmk.seal` does that."""
        fields = (self.key, self.small, self.width, self.height, self.pixel_hash, self.payload, self.secret, self.scheme)
        body = msgspec.msgpack.encode(_Stored(*fields))
        head = _MAGIC + b"%d" % VERSION
        return head + _checksum(head + body) + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Registration:
        """The registration in bytes of this version or an older one. Raises RegistrationInvalid."""
        if data[:3] != _MAGIC or not data[3:4].isdigit():
            raise RegistrationInvalid("not a registration", code="not_a_registration")
        if (version := int(data[3:4])) > VERSION:
            raise RegistrationInvalid(f"a registration of version {version}, this program reads {VERSION}", code="registration_too_new")
        checked = data[8:] if version == 1 else data[:4] + data[8:]
        if _checksum(checked) != data[4:8]:
            raise RegistrationInvalid("the registration's checksum does not fit")
        try:
            stored = msgspec.msgpack.decode(data[8:], type=_Stored)
        except msgspec.MsgspecError as error:
            raise RegistrationInvalid(f"the registration cannot be read: {error}") from error
        return cls(*msgspec.structs.astuple(stored))


def _checksum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """Version 1 ends with the pixel hash. What a later one adds comes at the end."""

    key: bytes
    small: bytes
    width: int
    height: int
    pixel_hash: bytes
    payload: bool = False
    secret: bool = False
    scheme: int = 1
