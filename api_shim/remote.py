"""Bytes that a request names by a URL: our own static addresses without leaving the server, others through the netguard."""

from __future__ import annotations

import base64
import binascii
from typing import Final
from urllib.parse import unquote_to_bytes

from api_shim.endpoint import FILE_LIMIT, Call, decoded_path
from api_shim.links import BASE
from api_shim.routes.static import absent, find_static
from core import netguard
from core.errors import InvalidInput, NotFound, ObjectMissing

REMOTE_LIMIT: Final = 5_000_000
"""A remote file has to be smaller than this; our own addresses are exempt."""


def content_of(call: Call, url: str) -> bytes:
    """The bytes behind the URL.

    Raises:
        InvalidInput: not http(s), not reachable, not allowed (AddressRefused), or too large (code remote_too_large).
        Unavailable: one of ours that is still being made.
    """
    own = _own(call, url, "/static/")
    if own is not None:
        return _stored(call, own)
    try:
        return netguard.fetch(url, call.state.netguard, max_bytes=REMOTE_LIMIT - 1).body
    except InvalidInput as error:
        if error.code == "too_large":
            raise InvalidInput("a remote file has to be smaller than 5 MB", code="remote_too_large") from error
        raise


def content_or_data(call: Call, url: str) -> bytes:
    """The same, or what a data URI (RFC 2397) holds. Raises what `content_of` does, InvalidInput (code invalid_data_uri)."""
    if url[:5].lower() != "data:":
        return content_of(call, url)
    kind, comma, data = url[5:].partition(",")
    if not comma:
        raise InvalidInput("the data URI has no comma", code="invalid_data_uri")
    raw = unquote_to_bytes(data)
    if not kind.rstrip().lower().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(b"".join(raw.split()), validate=True)
    except binascii.Error as error:
        raise InvalidInput("the data URI is no base64", code="invalid_data_uri") from error


def media_path_of(call: Call, url: str) -> str | None:
    """The path that the URL of a media here stands for; None for any other. Raises InvalidInput: no path."""
    own = _own(call, url, f"{BASE}/media/")
    return decoded_path(own.encode()) if own is not None else None


def _own(call: Call, url: str, below: str) -> str | None:
    """What follows in a URL of this server's."""
    for start in (call.links.public_url, call.links.origin):
        if url.startswith(f"{start}{below}"):
            return url.removeprefix(f"{start}{below}")
    return None


def _stored(call: Call, address: str) -> bytes:
    try:
        key = find_static(call.services, address).key
    except NotFound as error:
        raise _gone() from error
    try:
        if call.services.store.head(key).length > FILE_LIMIT:
            raise InvalidInput("the file is too large", code="remote_too_large")
        return call.services.store.get(key)
    except ObjectMissing as error:
        why = absent(call.services, key)
        raise (_gone() if isinstance(why, NotFound) else why) from error


def _gone() -> InvalidInput:
    return InvalidInput("there is nothing at this URL, or not any more", code="remote_failed")
