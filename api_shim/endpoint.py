"""One way for every request: token, method, Accept, body, then a plain function in a thread, then JSON.

A handler takes a `Call` and returns an `Answer` (or raises an error of core.errors). It is synchronous and owns its transactions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api_shim import bodies
from api_shim.auth import authenticate
from api_shim.errors import LengthRequired, MethodNotAllowed, NotAcceptable, PayloadTooLarge, error_response
from api_shim.filters import Query
from api_shim.links import Links, links_of
from api_shim.pagination import Paginator
from api_shim.state import ApiState
from core.clock import Clock
from core.database import Database
from core.errors import FiligraneError, InvalidInput, NotBuilt, NotFound
from core.models import Account
from core.services import Services

JSON_LIMIT: Final = 1 << 20
FILE_LIMIT: Final = 64 << 20
"""Bytes of an uploaded picture."""
BODY_SECONDS: Final = 300
"""How long a client may take to send a body."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request, ready for its handler."""

    request: Request
    state: ApiState
    links: Links
    body: bytes
    request_id: str
    _account: Account | None

    @property
    def account(self) -> Account:
        assert self._account is not None, "only public actions have no account"
        return self._account

    @property
    def services(self) -> Services:
        return self.state.services

    @property
    def database(self) -> Database:
        return self.state.services.database

    @property
    def clock(self) -> Clock:
        return self.state.services.clock

    @property
    def content_type(self) -> str:
        return self.request.headers.get("content-type", "")

    @property
    def params(self) -> Mapping[str, str]:
        return self.request.query_params

    def query(self) -> Query:
        return Query(self.params)

    def number(self, name: str) -> int:
        """An id in the path. Raises NotFound: no number that an id can be."""
        text = str(self.request.path_params[name])
        if not (text.isascii() and text.isdecimal() and len(text) <= 18):
            raise NotFound("there is nothing with this id")
        return int(text)

    def fields(self) -> bodies.Fields:
        return bodies.fields(self.content_type, self.body)

    def paginator(self, path: str) -> Paginator:
        """For the collection at this path below the API's base."""
        return Paginator(self.links.secret, self.links.api(path), self.params)


@dataclass(frozen=True, slots=True)
class Answer:
    body: msgspec.Struct | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Action:
    """What one method of an endpoint does."""

    run: Callable[[Call], Answer]
    needs_body: bool = False
    limit: int = JSON_LIMIT
    bodiless: frozenset[str] = frozenset()
    """Content types that need no body all the same."""
    public: bool = False
    """Works without a token."""
    headers: Callable[[Services, Account], dict[str, str]] | None = None
    """Of every answer to an account, also of errors."""


class Endpoint:
    """An ASGI application for one path: its actions by method. Without any, the path is unknown (404, after authentication)."""

    def __init__(self, **actions: Action) -> None:
        self._actions = actions
        methods = {*actions, "OPTIONS", *({"HEAD"} if "GET" in actions else ())}
        self._allowed = ", ".join(sorted(methods))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except FiligraneError as error:
            response = error_response(error)
        except ClientDisconnect:
            return
        if (headers := getattr(request.state, "headers", None)) is not None:
            response.headers.update(await run_in_threadpool(headers))
        if request.method == "HEAD":
            response.body = b""
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if request.method == "OPTIONS" and self._actions:
            return Response(status_code=204, headers={"Allow": self._allowed})
        state: ApiState = request.app.state.api
        action = self._actions.get("GET" if request.method == "HEAD" else request.method)
        account = None
        if action is None or not action.public:
            account = await run_in_threadpool(authenticate, state.services, request.headers)
        if not self._actions:
            raise NotFound("there is nothing at this address")
        if action is None:
            raise MethodNotAllowed(request.method, self._allowed)
        if action.headers is not None and account is not None:
            request.state.headers = partial(action.headers, state.services, account)
        check_accept(request.headers.get("accept", ""))
        body = await _read(request, action) if action.needs_body else b""
        call = Call(request, state, links_of(request, state.services.settings), body, request.state.request_id, account)
        return _json(await run_in_threadpool(action.run, call))


def not_built(what: str) -> Action:
    """For what the API documents and this version does not have."""

    def refuse(call: Call) -> Answer:
        raise NotBuilt(f"{what} is documented and not built yet")

    return Action(refuse)


def check_accept(accept: str) -> None:
    """Raises NotAcceptable when a client refuses JSON."""
    ranges = [part.strip().lower() for part in accept.split(",") if part.strip()]
    if ranges and not any(_takes_json(part) for part in ranges):
        raise NotAcceptable("the API answers application/json only")


def media_path(request: Request) -> str:
    """What stands behind `/media/` in the request's address, decoded. Raises InvalidInput."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    return decoded_path(raw.partition(b"?")[0].partition(b"/media/")[2])


def decoded_path(path: bytes) -> str:
    """A percent-encoded path, decoded segment by segment: an encoded slash is no separator.

    Raises:
        InvalidInput: an encoded slash, or no UTF-8.
    """
    try:
        segments = [unquote_to_bytes(segment).decode() for segment in path.split(b"/")]
    except UnicodeDecodeError as error:
        raise InvalidInput("the path is not UTF-8", code="bad_path") from error
    if any("/" in segment for segment in segments):
        raise InvalidInput("a name cannot contain '/', encoded or not", code="bad_path")
    return "/".join(segments)


def _takes_json(media_range: str) -> bool:
    kind, _, parameters = media_range.partition(";")
    refused = any(parameter.strip() in ("q=0", "q=0.0", "q=0.00", "q=0.000") for parameter in parameters.split(";"))
    return kind.strip() in ("*/*", "application/*", "application/json") and not refused


async def _read(request: Request, action: Action) -> bytes:
    """The body, when it has a length that is within the limit."""
    length = request.headers.get("content-length", "")
    if bodies.media_type(request.headers.get("content-type", "")) in action.bodiless and length in ("", "0"):
        return b""
    if "transfer-encoding" in request.headers or length in ("", "0"):
        raise LengthRequired("the request needs a body, and its Content-Length")
    if not length.isdecimal():
        raise InvalidInput("Content-Length is no number")
    if len(length) > 15 or int(length) > action.limit:
        raise PayloadTooLarge(f"at most {action.limit} bytes are accepted here")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.body()
    except TimeoutError as error:
        raise InvalidInput(f"the body did not arrive within {BODY_SECONDS} s", code="body_timeout") from error


def _json(answer: Answer) -> Response:
    if answer.body is None:
        return Response(status_code=answer.status, headers=answer.headers)
    return Response(msgspec.json.encode(answer.body), status_code=answer.status, headers=answer.headers, media_type="application/json")
