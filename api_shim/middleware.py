"""Around every request: its id, its line in the log, one form of paths, and JSON for what nobody else has caught."""

from __future__ import annotations

import re
import time
from typing import Any, Final
from uuid import uuid4

import structlog
from starlette.datastructures import MutableHeaders
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_shim.errors import INTERNAL, error_response
from core.errors import FiligraneError, InvalidInput
from core.telemetry import histogram

URL_LIMIT: Final = 16_384
_CAPABILITY: Final = re.compile(r"^(/static/\d+,|/objects/).*")

_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_SECONDS: Final = histogram(
    "filigrane_api_request_seconds", "Requests by method, template of the address, and status (0: cut).", ["method", "route", "status"]
)

_log = structlog.get_logger()


class Requests:
    """Gives each request an id (X-Request-Id, the log, messages), and both forms of a path, with and without a final slash, one handler."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        inner = _without_slash(scope)
        started, status = time.monotonic(), 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._guarded(inner, receive, send_with_id, lambda: status != 0)
            finally:
                seconds = time.monotonic() - started
                _SECONDS.labels(_method(scope), _route(inner), status).observe(seconds)
                _log.info("request", **_line(scope), status=status, ms=round(1000 * seconds, 1))

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, begun: Any) -> None:
        try:
            if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > URL_LIMIT:
                raise InvalidInput("the URL is too long", code="url_too_long")
            await self._app(scope, receive, send)
        except FiligraneError as error:
            if begun():
                raise
            await error_response(error)(scope, receive, send)
        except Exception:
            _log.exception("request.failed")
            if begun():
                raise
            await error_response(INTERNAL)(scope, receive, send)


def _without_slash(scope: Scope) -> Scope:
    path = scope["path"]
    if len(path) < 2 or not path.endswith("/"):
        return scope
    raw = scope.get("raw_path")
    return {**scope, "path": path[:-1], "raw_path": raw[:-1] if raw and raw.endswith(b"/") else raw}


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in _METHODS else "other"


def _route(scope: Scope) -> str:
    """The template of the address, as the router left it in the scope; never the address."""
    route = scope.get("route")
    return f"{scope.get('root_path', '')}{route.path}" if isinstance(route, Route) else "none"


def _line(scope: Scope) -> dict[str, Any]:
    """What the log says of a request: never a token, a query string, or the secret part of an address."""
    client = scope.get("client")
    return {"method": scope["method"], "path": _CAPABILITY.sub(r"\1…", scope["path"])[:500], "client": client[0] if client else None}
