"""Objects under addresses that nobody can guess, and the store's own capabilities; without a token."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api_shim.errors import RangeNotSatisfiable
from api_shim.links import static_hash
from api_shim.state import ApiState
from core.errors import FiligraneError, InvalidInput, NotFound, ObjectMissing, Unavailable
from core.models import Static
from core.objectstore import ObjectStore
from core.objectstore.folder import FolderStore
from core.repo import temporary
from core.services import Services

_ADDRESS: Final = re.compile(r"(\d{1,18}),([0-9a-f]{20})", re.ASCII)
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_SHOWN: Final = frozenset({"image/jpeg", "image/png", "image/webp", "image/gif"})


@dataclass(frozen=True, slots=True)
class Download:
    key: str
    content_type: str
    filename: str | None


def static(request: Request, state: ApiState) -> Response:
    """GET /static/<id>,<hash>"""
    row = find_static(state.services, request.path_params["address"])
    try:
        return serve(request, state.services.store, Download(row.key, row.content_type, row.filename))
    except ObjectMissing as error:
        raise absent(state.services, row.key) from error


def absent(services: Services, key: str) -> FiligraneError:
    """Why there is no object behind an address that was given out: it is gone, or is still being made."""
    with services.database.read() as tx:
        order = temporary.of_folder(tx, key.rpartition("/")[0])
    if order is None or order.state == temporary.DONE:
        return _gone()
    if order.state == temporary.FAILED:
        return NotFound(order.reason or "the picture could not be marked", code="watermarking_failed")
    return Unavailable("the picture is still being marked", code="not_ready", retry_after=1)


def find_static(services: Services, address: str) -> Static:
    """The row behind `<id>,<hash>`. Raises NotFound: no such address, or it has expired."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise _gone()
    with services.database.read() as tx:
        row = tx.get(Static, int(found[1]))
    if row is None or not hmac.compare_digest(static_hash(services.settings.secret, row.id, row.key), found[2]):
        raise _gone()
    if row.expires is not None and row.expires <= services.clock.now():
        raise _gone()
    return row


def stored_object(request: Request, state: ApiState) -> Response:
    """GET /objects/<key>?expires=…&signature=…: what `FolderStore.url` gave out."""
    store = state.services.store
    params = request.query_params
    if not isinstance(store, FolderStore):
        raise _gone()
    if not re.fullmatch(r"\d{1,15}", params.get("expires", ""), re.ASCII):
        raise InvalidInput("the address of this object is not complete", code="bad_address")
    key, filename = request.path_params["key"], params.get("filename")
    store.verify(key, params["expires"], params.get("signature", ""), filename)
    return serve(request, store, Download(key, "application/octet-stream", filename or key.rpartition("/")[2]))


def serve(request: Request, store: ObjectStore, download: Download) -> Response:
    """The object or the part of it that was asked for.

    Raises:
        ObjectMissing: it is gone.
        RangeNotSatisfiable: the range begins after its end.
    """
    info = store.head(download.key)
    headers = _headers(download, f'"{hashlib.sha256(f"{info.key}/{info.length}/{info.modified}".encode()).hexdigest()[:32]}"')
    if _not_modified(request.headers.get("if-none-match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    asked = request.headers.get("range", "") if request.headers.get("if-range", headers["ETag"]) == headers["ETag"] else ""
    span = byte_range(asked, info.length)
    start, end = span or (0, info.length)
    headers["Content-Length"] = str(end - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{info.length}"
    status = 200 if span is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=download.content_type)
    return StreamingResponse(store.stream(download.key, start, end - start), status, headers, download.content_type)


def byte_range(header: str, length: int) -> tuple[int, int] | None:
    """(start, end exclusive) of a Range header with one range; None for the whole: no range, several, or none that we know (RFC 9110).

    Raises:
        RangeNotSatisfiable: nothing of the object is in it.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, length - int(found[2])), length
    else:
        start, end = int(found[1]), min(int(found[2]) + 1, length) if found[2] else length
        if found[2] and int(found[2]) < start:
            return None
    if start >= length or start >= end:
        raise RangeNotSatisfiable(length)
    return start, end


def _headers(download: Download, etag: str) -> dict[str, str]:
    kind = "inline" if download.content_type in _SHOWN else "attachment"
    name = f"; filename*=UTF-8''{quote(download.filename, safe='')}" if download.filename else ""
    return {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": kind + name,
    }


def _not_modified(given: str, etag: str) -> bool:
    return etag in [tag.strip().removeprefix("W/") for tag in given.split(",")]


def _gone() -> NotFound:
    return NotFound("there is nothing at this address, or not any more")
