"""The API: every route in one list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, Router

from api_shim.endpoint import FILE_LIMIT, JSON_LIMIT, Action, Endpoint, not_built
from api_shim.errors import MethodNotAllowed, error_response
from api_shim.limits import watermarking_headers
from api_shim.links import BASE
from api_shim.middleware import Requests
from api_shim.routes import account, crawling, health, matches, media, searches, static, uploads, watermarking
from api_shim.state import ApiState
from core.errors import InvalidInput, NotFound
from core.services import Services

_PRESS = not_built("the press feed")
_CREDIT = not_built("finding credit lines")
_RECORDED = not_built("recording searches")
_BLACKLIST = not_built("the domain blacklist")

API: Final[list[BaseRoute]] = [
    Route("/account", Endpoint(GET=Action(account.show))),
    Route("/account/token", Endpoint(POST=Action(account.token, needs_body=True, limit=16_384, public=True))),
    Route("/media", Endpoint(GET=Action(media.root))),
    Route("/media/_move", Endpoint(POST=Action(media.move, needs_body=True))),
    Route(
        "/media/{path:path}",
        Endpoint(
            GET=Action(media.show),
            PUT=Action(media.put, needs_body=True, limit=FILE_LIMIT, bodiless=frozenset({media.FOLDER})),
            DELETE=Action(media.delete),
        ),
    ),
    Route("/matches", Endpoint(GET=not_built("one list of all kinds of matches"))),
    Route("/matches/web", Endpoint(GET=Action(matches.web))),
    Route("/matches/press", Endpoint(GET=_PRESS)),
    Route("/matches/credit", Endpoint(GET=_CREDIT)),
    Route("/matches/user", Endpoint(GET=_RECORDED)),
    Route("/matches/{match_id}", Endpoint(GET=Action(matches.show))),
    Route("/matches/{kind}/{match_id}", Endpoint(GET=Action(matches.show))),
    Route("/crawling/sessions", Endpoint(GET=Action(crawling.list_sessions), POST=Action(crawling.create_session, needs_body=True))),
    Route(
        "/crawling/sessions/{session_id}",
        Endpoint(
            GET=Action(crawling.show_session),
            PATCH=Action(crawling.change_session, needs_body=True),
            DELETE=Action(crawling.delete_session),
        ),
    ),
    Route("/crawling/sessions/{session_id}/batches", Endpoint(GET=Action(crawling.list_batches))),
    Route("/crawling/batches", Endpoint(GET=Action(crawling.list_batches))),
    Route("/crawling/batches/{batch_id}", Endpoint(GET=Action(crawling.show_batch))),
    Route("/searches", Endpoint(GET=_RECORDED, POST=Action(searches.search, needs_body=True, limit=FILE_LIMIT + JSON_LIMIT))),
    Route("/searches/{search_id}", Endpoint(GET=_RECORDED, DELETE=_RECORDED)),
    Route("/searches/{search_id}/matches", Endpoint(GET=_RECORDED)),
    Route(
        "/watermarking",
        Endpoint(POST=Action(watermarking.mark, needs_body=True, limit=FILE_LIMIT, headers=watermarking_headers)),
    ),
    Route("/watermarking/detect", Endpoint(POST=Action(watermarking.detect, needs_body=True, limit=FILE_LIMIT))),
    Route("/watermarking/key", Endpoint(GET=Action(account.public_key))),
    Route("/uploads", Endpoint(POST=Action(uploads.upload, needs_body=True, limit=FILE_LIMIT))),
    Route("/domains/blacklist", Endpoint(GET=_BLACKLIST, POST=_BLACKLIST, DELETE=_BLACKLIST)),
    Route("/{path:path}", Endpoint()),
]


def create_app(services: Services) -> Starlette:
    """The ASGI application. It uses the services and does not close them."""
    state = ApiState(services)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await run_in_threadpool(state.close)

    app = Starlette(
        routes=[
            Mount(BASE, app=Router(API, redirect_slashes=False)),
            Route("/static/{address}", _plain(static.static, state), methods=["GET"]),
            Route("/objects/{key:path}", _plain(static.stored_object, state), methods=["GET"]),
            Route("/healthz", _healthz, methods=["GET"]),
        ],
        middleware=[Middleware(Requests)],
        exception_handlers={HTTPException: _http_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.api = state
    return app


def _plain(handler: Callable[[Request, ApiState], Response], state: ApiState) -> Callable[[Request], object]:
    """Outside the API: no token, no Accept, other bodies than JSON."""

    async def endpoint(request: Request) -> Response:
        return await run_in_threadpool(handler, request, state)

    return endpoint


async def _healthz(request: Request) -> Response:
    return await health.healthz(request.app.state.api)


def _http_error(request: Request, error: Exception) -> Response:
    """What Starlette itself raises: an unknown path or method outside the API."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        return error_response(MethodNotAllowed(request.method, (error.headers or {}).get("Allow", "GET, HEAD")))
    if error.status_code == 404:
        return error_response(NotFound("there is nothing at this address"))
    return error_response(InvalidInput(error.detail, code="bad_request"))
