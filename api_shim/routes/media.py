"""The media tree: look, register, delete."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy.orm import Session

from api_shim import bodies, remote, schemas
from api_shim.endpoint import Answer, Call, media_path
from api_shim.errors import InvalidFields
from api_shim.pagination import Order
from api_shim.present import Presenter
from api_shim.routes.matches import page_of_web_matches
from api_shim.schemas import stamp
from core import imageinfo
from core.errors import Conflict, InvalidInput, NotBuilt, NotFound, UnsupportedMedia
from core.models import Media
from core.repo import media
from core.urls import MAX_LENGTH
from matcher import registrar
from matcher.registrar import Registered
from matcher.watermark import lmk

FOLDER: Final = "application/x-directory"
_PICTURES: Final = frozenset({"image/jpeg", "image/jpg", "image/png", "image/webp"})
_REGISTRATION: Final = "application/lmk"
_VIDEO: Final = "video/mp4"
_BY_ID: Final = Order("media", (Media.id,), descending=False)
_EXCLUSIVE: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Remote(msgspec.Struct):
    url: Annotated[str, Meta(min_length=1, max_length=2 * MAX_LENGTH)]
    exclusive: bool | UnsetType = UNSET


class To(msgspec.Struct):
    url: str


class Move(msgspec.Struct):
    url: str
    to: str | To


def root(call: Call) -> Answer:
    """The home directories that the token sees."""
    with call.database.read() as tx:
        page = call.paginator("/media").page(tx, media.homes(call.account.id), _BY_ID)
        children = Presenter(tx, call.links).media(page.items)
    created = stamp(call.account.created)
    return Answer(schemas.Folder(call.links.api("/media"), "", created, "folder", page.count, page.next, page.previous, children))


def show(call: Call) -> Answer:
    """The media at the path, or (where there is none) the matches of the one before `/matches/<kind>`."""
    path = media_path(call.request)
    with call.database.read() as tx:
        node = media.find(tx, call.account.id, path)
        if node is not None:
            return _shown(call, Presenter(tx, call.links), node, tx)
        owner, kind = _sub_resource(path)
        node = media.get(tx, call.account.id, owner)
    if kind != "web":
        raise NotBuilt(f"{kind} matches are documented and not built yet")
    return page_of_web_matches(call, f"{call.links.media(node.path).removeprefix(call.links.api(''))}/matches/web/", node.id)


def put(call: Call) -> Answer:
    """Registers what the body holds or names at the path; 201, or 200 when it replaced a media or the folder was there."""
    path = media_path(call.request)
    kind = bodies.media_type(call.content_type)
    if kind == FOLDER:
        return _put_folder(call, path)
    if kind == _REGISTRATION:
        return _put_registration(call, path, call.body, _exclusive_header(call))
    if kind in _PICTURES:
        return _put_picture(call, path, call.body, _exclusive_header(call))
    if kind in ("application/json", "application/x-www-form-urlencoded", ""):
        return _put_remote(call, path, bodies.parse(Remote, call.fields()))
    if kind == _VIDEO:
        raise _no_video()
    raise UnsupportedMedia(f"{kind} cannot be registered; send an LMK file, JPEG, PNG, WebP, or JSON with a url")


def delete(call: Call) -> Answer:
    path = media_path(call.request)
    keys = call.database.transact(lambda tx: media.delete(tx, call.account.id, path, call.clock.now()))
    call.state.announcer.announce()
    call.services.store.delete(keys)
    return Answer(status=204)


def move(call: Call) -> Answer:
    """Moves or renames; a new place that ends in a slash is the folder to put it in."""
    wanted = bodies.parse(Move, call.fields())
    source = _place(call, "url", wanted.url).rstrip("/")
    to = _place(call, "to", wanted.to if isinstance(wanted.to, str) else wanted.to.url)
    if to.endswith("/"):
        to += source.rpartition("/")[2]
    node = call.database.transact(lambda tx: media.move(tx, call.account.id, source, to, call.clock.now()))
    return Answer(schemas.Moved(node.path))


def _place(call: Call, name: str, text: str) -> str:
    """The path that a URL of a media, or a bare path, stands for. Raises InvalidFields."""
    if "://" not in text:
        if "/" not in text.strip("/"):
            raise InvalidFields({name: "is the URL of a media, or a path from the home directory on"})
        return text.lstrip("/")
    path = remote.media_path_of(call, text)
    if path is not None:
        return path
    raise InvalidFields({name: "is not the URL of a media here"})


def _shown(call: Call, presenter: Presenter, node: Media, tx: Session) -> Answer:
    if node.type != "folder":
        return Answer(presenter.media([node])[0])
    page = call.paginator(f"/media/{quote(node.path)}").page(tx, media.children(node.id), _BY_ID)
    return Answer(presenter.folder(node, page))


def _sub_resource(path: str) -> tuple[str, str]:
    """(path of the media, kind of matches). Raises NotFound."""
    owner, _, rest = path.rpartition("/")
    owner, _, collection = owner.rpartition("/")
    if collection not in ("matches", "_matches") or rest not in ("web", "press", "user") or not owner:
        raise NotFound("there is no media at this path", code="media_not_found")
    return owner, rest


def _put_folder(call: Call, path: str) -> Answer:
    def put(tx: Session) -> Answer:
        node, created = media.create_folder(tx, call.account.id, path, call.clock.now())
        return Answer(_shown(call, Presenter(tx, call.links), node, tx).body, 201 if created else 200)

    return call.database.transact(put)


def _put_remote(call: Call, path: str, wanted: Remote) -> Answer:
    """What is behind a URL; its kind is that of its content."""
    _check_free(call, path)
    data = remote.content_of(call, wanted.url)
    put = _put_registration if lmk.is_sealed(data) else _put_picture
    return put(call, path, data, None if wanted.exclusive is UNSET else wanted.exclusive)


def _put_registration(call: Call, path: str, data: bytes, exclusive: bool | None) -> Answer:
    _check_free(call, path)
    account_id = call.account.id
    registration = call.state.keys.unseal(account_id, data)
    run = call.state.decoders.run
    return _registered(
        call, registrar.register_mark(call.services, account_id, path, registration, run, disk_usage=len(data), exclusive=exclusive)
    )


def _put_picture(call: Call, path: str, data: bytes, exclusive: bool | None) -> Answer:
    _check_free(call, path)
    if (imageinfo.sniff(data) or "").startswith("video/"):
        raise _no_video()
    prepared = call.state.decoders.run(registrar.prepare, data)
    return _registered(call, registrar.register(call.services, call.account.id, path, prepared, disk_usage=len(data), exclusive=exclusive))


def _no_video() -> NotBuilt:
    return NotBuilt("registering videos is documented and not built yet")


def _registered(call: Call, registered: Registered) -> Answer:
    call.state.announcer.announce()
    with call.database.read() as tx:
        node = tx.get(Media, registered.media_id)
        if node is None:
            raise Conflict("the media was deleted or replaced while it was registered")
        return Answer(Presenter(tx, call.links).media([node])[0], 201 if registered.created else 200)


def _check_free(call: Call, path: str) -> None:
    """Refuses early, before anything costly, what cannot be registered at this path."""
    with call.database.read() as tx:
        node = media.find(tx, call.account.id, media.creatable(tx, call.account.id, path))
    if node is not None and node.type == "folder":
        raise Conflict("there is a folder at this path", code="is_folder")


def _exclusive_header(call: Call) -> bool | None:
    value = call.request.headers.get("x-lamark-exclusive")
    if value is None:
        return None
    if value.strip().lower() not in _EXCLUSIVE:
        raise InvalidInput("X-Lamark-Exclusive is true or false", code="invalid_header")
    return _EXCLUSIVE[value.strip().lower()]
