"""Searching with a picture, synchronously: asked on the bus, answered by a matcher, never recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from api_shim import bodies, remote, schemas
from api_shim.endpoint import Answer, Call
from api_shim.errors import InvalidFields
from api_shim.present import Presenter
from core import imageinfo
from core.errors import NotBuilt, UnsupportedMedia
from core.events import PRIVATE, WEB
from matcher.copies.geometry import MODELS

DEADLINE: Final = timedelta(seconds=20)
_TRUE: Final = frozenset({"1", "true", "True", "yes"})
_FALSE: Final = frozenset({"0", "false", "False", "no", ""})
_CATEGORIES: Final = (PRIVATE, WEB)
_FORMS: Final = frozenset({"application/json", "application/x-www-form-urlencoded", "multipart/form-data", ""})


@dataclass(frozen=True, slots=True)
class Wanted:
    data: bytes
    transform: str
    similar: bool
    category: str | None


def search(call: Call) -> Answer:
    wanted = _wanted(call)
    answer = call.state.answers.search(
        call.account,
        wanted.data,
        transform=wanted.transform,
        similar=wanted.similar,
        category=wanted.category,
        patience=DEADLINE,
        request_id=call.request_id,
    )
    with call.database.read() as tx:
        matches = Presenter(tx, call.links).found(call.account.id, answer, call.clock.now())
    return Answer(schemas.search_done(matches, answer.candidates))


def _wanted(call: Call) -> Wanted:
    """What is searched for, and how. Parameters stand in the query string, a form or JSON; the body's win."""
    given, data = _given(call)
    values = {**call.params, **given}
    problems: dict[str, str] = {}
    sync = _flag(values, "sync", problems)
    similar = _flag(values, "similar", problems)
    transform = _choice(values, "transform", MODELS, problems)
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
    if data is None:
        data = remote.content_of(call, str(url))
    if imageinfo.sniff(data) == "application/pdf":
        _refuse_document(sync)
    return Wanted(data, transform or "scale", bool(similar), category)


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
