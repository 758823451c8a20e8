"""Pictures that are kept for a while, so that their URL can be given instead of the bytes."""

from __future__ import annotations

from functools import partial

from api_shim import bodies, keeping, schemas
from api_shim.endpoint import Answer, Call
from core import imageinfo
from core.errors import UnsupportedMedia
from core.repo import temporary
from matcher.decode import PICTURES, check


def upload(call: Call) -> Answer:
    """Keeps the body; it is in no media tree and in no quota."""
    if bodies.media_type(call.content_type) not in PICTURES:
        raise UnsupportedMedia("JPEG, PNG, WebP and GIF are kept here")
    check(call.body)
    kind = imageinfo.sniff(call.body) or ""
    key = f"uploads/{call.account.id}/{keeping.nonce()}"
    expires = keeping.expiry(call.services)
    call.services.store.put(key, call.body)
    add = partial(
        temporary.add_static,
        key=key,
        content_type=kind,
        filename=f"upload{keeping.suffix(kind)}",
        now=call.clock.now(),
        expires=expires,
    )
    static = call.database.transact(add)
    return Answer(schemas.Uploaded(call.links.static(static), keeping.shown(expires)), 201)
