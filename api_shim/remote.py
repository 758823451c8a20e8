"""Bytes that a request names by a URL: our own static addresses without leaving the server, others through the netguard."""

from __future__ import annotations

from typing import Final

from api_shim.endpoint import FILE_LIMIT, Call
from api_shim.routes.static import find_static
from core import netguard
from core.errors import InvalidInput, NotFound

REMOTE_LIMIT: Final = 5_000_000
"""A remote file has to be smaller than this; our own addresses are exempt."""


def content_of(call: Call, url: str) -> bytes:
    """The bytes behind the URL.

    Raises:
        InvalidInput: not http(s), not reachable, not allowed (AddressRefused), or too large (code remote_too_large).
    """
    own = _own_address(call, url)
    if own is not None:
        return _stored(call, own)
    try:
        return netguard.fetch(url, call.state.netguard, max_bytes=REMOTE_LIMIT - 1).body
    except InvalidInput as error:
        if error.code == "too_large":
            raise InvalidInput("a remote file has to be smaller than 5 MB", code="remote_too_large") from error
        raise


def _own_address(call: Call, url: str) -> str | None:
    for start in (call.links.public_url, call.links.origin):
        if url.startswith(f"{start}/static/"):
            return url.removeprefix(f"{start}/static/")
    return None


def _stored(call: Call, address: str) -> bytes:
    try:
        key = find_static(call.services, address).key
        if call.services.store.head(key).length > FILE_LIMIT:
            raise InvalidInput("the file is too large", code="remote_too_large")
        return call.services.store.get(key)
    except NotFound as error:
        raise InvalidInput("there is nothing at this URL, or not any more", code="remote_failed") from error
