"""Whether the parts answer."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.responses import Response

from api_shim import schemas
from api_shim.state import ApiState
from core.errors import Unavailable
from core.health import OK


async def healthz(state: ApiState) -> Response:
    """200 when database, store and bus answer within their time. Raises Unavailable that names the parts which do not, and why."""
    # not in the threads of the requests: those may all be waiting for the part that hangs
    wrong = {part: said for part, said in (await asyncio.to_thread(state.health.look)).items() if said != OK}
    if wrong:
        raise Unavailable("; ".join(f"the {part}: {said}" for part, said in wrong.items()), code="unhealthy", retry_after=5)
    return Response(msgspec.json.encode(schemas.Health("ok")), media_type="application/json", headers={"Cache-Control": "no-store"})
