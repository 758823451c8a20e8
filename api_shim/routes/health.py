"""Whether the parts answer."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy import text
from starlette.requests import Request
from starlette.responses import Response

from api_shim import schemas
from api_shim.state import ApiState
from core.errors import FiligraneError, Unavailable
from core.events import IMAGES


def healthz(request: Request, state: ApiState) -> Response:
    """200 when database, store and bus answer. Raises Unavailable, naming the part that does not."""
    services = state.services
    checks: dict[str, Callable[[], object]] = {
        "database": lambda: _ask_database(state),
        "object store": lambda: next(iter(services.store.list("queries/")), None),
        "bus": lambda: services.bus.lag(IMAGES, "matcher"),
    }
    for part, check in checks.items():
        try:
            check()
        except FiligraneError as error:
            raise Unavailable(f"the {part} does not answer", code="unhealthy", retry_after=5) from error
    return Response(msgspec.json.encode(schemas.Health("ok")), media_type="application/json", headers={"Cache-Control": "no-store"})


def _ask_database(state: ApiState) -> None:
    with state.services.database.read() as tx:
        tx.execute(text("SELECT 1"))
