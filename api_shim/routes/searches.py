"""Searching with a picture, synchronously: asked on the bus, answered by a matcher, never recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

from api_shim import bodies, remote, schemas
from api_shim.endpoint import Answer, Call
from api_shim.errors import InvalidFields
from api_shim.present import Presenter
from api_shim.schemas import stamp
from core import imageinfo
from core.errors import FiligraneError, InvalidInput, NotBuilt, Unavailable, UnsupportedMedia
from core.events import SearchAnswered, SearchAsked
from core.models import Picture
from core.repo import media

DEADLINE: Final = timedelta(seconds=20)
_TRUE: Final = frozenset({"1", "true", "True", "yes"})
_FALSE: Final = frozenset({"0", "false", "False", "no", ""})
_TRANSFORMS: Final = ("scale", "affine", "perspective")
_CATEGORIES: Final = ("private", "web")
_FORMS: Final = frozenset({"application/json", "application/x-www-form-urlencoded", "multipart/form-data", ""})
_FAILURES: Final[dict[str, type[FiligraneError]]] = {kind.default_code: kind for kind in (FiligraneError, UnsupportedMedia, Unavailable)}
"""What a matcher's error is besides wrong input."""


@dataclass(frozen=True, slots=True)
class Wanted:
    data: bytes
    transform: str
    similar: bool


def search(call: Call) -> Answer:
    wanted = _wanted(call)
    with call.state.answers.room():
        answer = _asked(call, wanted)
    if answer.error_code is not None:
        kind = _FAILURES.get(answer.error_code, InvalidInput)
        raise kind(answer.error_details or "the picture could not be searched with", code=answer.error_code)
    return Answer(schemas.SearchDone("complete", _matches(call, answer)))


def _asked(call: Call, wanted: Wanted) -> SearchAnswered:
    """The matcher's answer; the query's bytes are gone afterwards."""
    search_id = uuid4().hex
    key = f"queries/{search_id}"
    call.services.store.put(key, wanted.data)
    try:
        return call.state.answers.ask(
            SearchAsked(
                search=search_id,
                account=call.account.id,
                registry_version=call.account.registry_version,
                key=key,
                transform=wanted.transform,
                similar=wanted.similar,
                deadline=call.clock.now() + DEADLINE,
                reply_to=call.state.answers.process,
                request_id=call.request_id,
            )
        )
    finally:
        call.services.store.delete([key])


def _matches(call: Call, answer: SearchAnswered) -> list[schemas.UserMatch]:
    """Hits whose media were deleted meanwhile are left out."""
    created = stamp(call.clock.now())
    detected = {hit.picture for hit in answer.hits if hit.key_id}
    found = []
    with call.database.read() as tx:
        presenter = Presenter(tx, call.links)
        for hit in answer.hits:
            picture = tx.get(Picture, hit.picture)
            nodes = media.linked(tx, hit.picture, hit.key_id, key_detected=hit.picture in detected)
            if picture is not None and picture.account_id == call.account.id and nodes:
                found.append(presenter.hit(hit, nodes, created))
    return found


def _wanted(call: Call) -> Wanted:
    """What is searched for, and how. Parameters stand in the query string, a form or JSON; the body's win."""
    given, data = _given(call)
    values = {**call.params, **given}
    problems: dict[str, str] = {}
    sync = _flag(values, "sync", problems)
    similar = _flag(values, "similar", problems)
    transform = _choice(values, "transform", _TRANSFORMS, problems)
    category = _choice(values, "category", _CATEGORIES, problems)
    url = values.get("url")
    if url is not None and not isinstance(url, str):
        problems["url"] = "is a URL"
    elif (not url) == (data is None):
        problems["url"] = "either url or file, and not both"
    if problems:
        raise InvalidFields(problems)
    if sync is False:
        raise NotBuilt("asynchronous searches are documented and not built yet; leave sync out")
    if category == "web":
        raise NotBuilt("searching the crawled pictures is documented and not built yet; use category=private")
    if data is None:
        data = remote.content_of(call, str(url))
    if imageinfo.sniff(data) == "application/pdf":
        _refuse_document(sync)
    return Wanted(data, transform or "scale", bool(similar))


def _given(call: Call) -> tuple[dict[str, Any], bytes | None]:
    """The body's fields, and the file when it has one (in a form, or as the whole body)."""
    kind = bodies.media_type(call.content_type)
    if bodies.is_multipart(call.content_type, call.body) or kind in _FORMS:
        fields = call.fields()
        return fields.values, bytes(fields.file.data) if fields.file is not None else None
    if kind.startswith("image/") or kind in ("application/pdf", "application/octet-stream"):
        return {}, call.body
    raise UnsupportedMedia(f"{kind} is no picture and no form")


def _refuse_document(sync: bool | None) -> None:
    if sync:
        raise InvalidFields({"sync": "documents are searched asynchronously only"})
    raise NotBuilt("searching with documents is documented and not built yet")


def _flag(values: dict[str, Any], name: str, problems: dict[str, str]) -> bool | None:
    value = values.get(name)
    if value is None or isinstance(value, bool):
        return value
    if str(value) in _TRUE:
        return True
    if str(value) not in _FALSE:
        problems[name] = "is true or false"
    return False


def _choice(values: dict[str, Any], name: str, choices: tuple[str, ...], problems: dict[str, str]) -> str | None:
    value = values.get(name)
    if value is not None and value not in choices:
        problems[name] = f"is one of {', '.join(choices)}"
        return None
    return value
