"""Marking pictures, and looking for one mark in one picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from sqlalchemy.orm import Session

from api_shim import bodies, keeping, limits, orders, remote, schemas
from api_shim.endpoint import Answer, Call
from api_shim.errors import InvalidFields
from api_shim.limits import taking
from api_shim.orders import Order
from core import imageinfo
from core.errors import InvalidInput, NotBuilt, UnsupportedMedia
from core.models import Static
from core.repo import media, pictures, temporary
from core.repo.allowances import Left
from core.urls import MAX_LENGTH
from matcher import marking, registrar
from matcher.decode import check
from matcher.marks import stored
from matcher.watermark.keys import new_key
from matcher.watermark.payload import MAX_PAYLOAD
from matcher.watermark.registration import Registration

_FORMS: Final = frozenset({"application/json", "application/x-www-form-urlencoded", ""})
_PICTURES: Final = marking.MARKED | {"image/jpg"}
_REGISTRATION: Final = "application/lmk"
_SECRET: Final = "X-Lamark-Secret"  # noqa: S105 - the name of a header
_TIMEOUT: Final = 120

Url = Annotated[str, Meta(min_length=1, max_length=2 * MAX_LENGTH)]
Anywhere = Annotated[str, Meta(min_length=1)]
"""A URL or a data URI."""
Seconds = Annotated[int, Meta(ge=0, le=_TIMEOUT)]
Payload = Annotated[int, Meta(ge=0, le=MAX_PAYLOAD)]
Secret = Annotated[str, Meta(min_length=1, max_length=1024)]


class How(msgspec.Struct):
    """Stands in the query string where the body is the picture. The secret never does; it may stand in a header."""

    sync: bool = True
    timeout: Seconds = _TIMEOUT
    payload: Payload | None = None
    secret: Secret | None = None
    transactional: bool = False


class Wanted(How, kw_only=True):
    url: Url


class Question(msgspec.Struct):
    query: Anywhere
    registration: Anywhere
    original: Anywhere | None = None
    secret: Secret | None = None
    payload_max: Payload | None = None
    sync: bool = True
    timeout: Seconds = _TIMEOUT


@dataclass(frozen=True, slots=True)
class Files:
    """Where the files of one watermarking lie, and until when."""

    folder: str
    kind: str
    expires: datetime

    def add(self, tx: Session, now: datetime) -> tuple[Static, Static, Static]:
        """Addresses of original, marked picture and registration."""
        suffix = keeping.suffix(self.kind)
        original, watermarked, registration = (
            temporary.add_static(tx, f"{self.folder}/{name}", kind, f"{name}{ending}", now, self.expires)
            for name, kind, ending in (
                ("original", self.kind, suffix),
                ("watermarked", self.kind, suffix),
                ("registration", _REGISTRATION, ".lmk"),
            )
        )
        return original, watermarked, registration


def mark(call: Call) -> Answer:
    """Marks the body, or what its URL names: 200 once it is done, 201 at once where nobody waits."""
    how = _how(call)
    until = call.clock.monotonic() + how.timeout
    with taking(call.services, call.account.id, limits.watermarking(call.services.settings)) as left:
        data = remote.content_of(call, how.url) if isinstance(how, Wanted) else call.body
        kind = _kind(data)
        files = Files(f"watermarking/{call.account.id}/{keeping.nonce()}", kind, keeping.expiry(call.services))
        if how.sync:
            return _marked(call, data, how, files, until)
        return _ordered(call, data, how, files, left)


def detect(call: Call) -> Answer:
    """Whether a picture carries the mark of one registration. Answered synchronously whatever `sync` says."""
    asked = bodies.parse(Question, call.fields())
    until = call.clock.monotonic() + asked.timeout
    registration = _registration(call, asked.registration)
    original = remote.content_or_data(call, asked.original) if asked.original is not None else None
    if registration.transactional and original is None:
        registration = _completed(call, registration)
    query = remote.content_or_data(call, asked.query)
    for picture in (query, original):
        if picture is not None:
            check(picture, formats=marking.LOOKED_AT)
    found = call.state.workshop.run(
        until - call.clock.monotonic(), marking.find, query, registration, asked.secret, asked.payload_max, original
    )
    return Answer(schemas.Detected(*found))


def _how(call: Call) -> How:
    if "secret" in call.params:  # to leave it out would be to mark without it
        raise InvalidFields({"secret": f"stands in JSON or in the header {_SECRET}: addresses are written into logs"})
    kind, header = bodies.media_type(call.content_type), _header(call)
    if kind in _FORMS:
        fields = call.fields()
        return bodies.parse(Wanted, replace(fields, values={**header, **fields.values}))
    if kind.startswith("video/"):
        raise NotBuilt("marking videos is documented and not built yet")
    if kind not in _PICTURES:
        raise UnsupportedMedia(f"{kind} is not marked; send a picture, or JSON with a url")
    return bodies.parse(How, bodies.Fields({**call.params, **header}, None, typed=False))


def _header(call: Call) -> dict[str, Any]:
    """The secret where a header has it, which is UTF-8. Raises InvalidInput."""
    value = call.request.headers.get(_SECRET)
    try:
        return {"secret": value.encode("latin-1").decode()} if value is not None else {}
    except UnicodeError as error:
        raise InvalidInput(f"{_SECRET} is UTF-8", code="invalid_header") from error


def _kind(data: bytes) -> str:
    """The content type of what is to be marked. Raises InvalidImage, UnsupportedMedia, NotBuilt."""
    if (imageinfo.sniff(data) or "").startswith("video/"):
        raise NotBuilt("marking videos is documented and not built yet")
    return marking.check_markable(data)


def _marked(call: Call, data: bytes, how: How, files: Files, until: float) -> Answer:
    public = call.state.keys.pem(call.account.id).encode()
    patience = until - call.clock.monotonic()
    done = call.state.workshop.run(patience, marking.mark, data, public, new_key(), how.payload, how.secret, how.transactional)
    store = call.services.store
    store.put(f"{files.folder}/original", data)
    store.put(f"{files.folder}/watermarked", done.file)
    store.put(f"{files.folder}/registration", done.registration)
    return _answer(call, files, call.database.transact(partial(files.add, now=call.clock.now())), 200)


def _ordered(call: Call, data: bytes, how: How, files: Files, left: Left) -> Answer:
    assert left.taken is not None, "one was taken"
    order = Order(new_key(), how.payload, how.secret, how.transactional, left.taken)
    sealed, now = orders.sealed(call.services, files.folder, order), call.clock.now()
    call.services.store.put(f"{files.folder}/original", data)

    def add(tx: Session) -> tuple[Static, Static, Static]:
        temporary.add_watermarking(tx, call.account.id, files.folder, sealed, now, files.expires)
        return files.add(tx, now)

    statics = call.database.transact(add)
    call.state.orders.wake()
    return _answer(call, files, statics, 201)


def _answer(call: Call, files: Files, statics: tuple[Static, Static, Static], status: int) -> Answer:
    original, watermarked, registration = (call.links.static(static) for static in statics)
    return Answer(schemas.Watermarked(original, watermarked, registration, keeping.shown(files.expires)), status)


def _registration(call: Call, named: str) -> Registration:
    """The registration of a media here, or the sealed one that the URL or data URI holds.

    Raises:
        Forbidden, NotFound: the media is not the account's, or there is none.
        InvalidInput: a media without a key (code not_watermarked); not a registration of this account's.
    """
    path = remote.media_path_of(call, named)
    if path is None:
        return call.state.keys.unseal(call.account.id, remote.content_or_data(call, named))
    with call.database.read() as tx:
        found = media.get(tx, call.account.id, path).registration
        picture = pictures.by_ids(tx, [found.picture_id])[0] if found is not None else None
    if found is None or picture is None or found.lmk_key is None:
        raise InvalidInput("this media was registered without a watermark", code="not_watermarked")
    return stored(call.services.store, found.lmk_key, picture.small_key)


def _completed(call: Call, registration: Registration) -> Registration:
    """A transactional one with the small picture of the account's that it belongs to. Raises InvalidInput, code original_required."""
    found = registrar.original_of(call.services, call.account.id, registration, call.state.decoders.run)
    if found is None:
        raise InvalidInput("a transactional registration needs the original, or that it is registered", code="original_required")
    return replace(registration, small=found.small)
