"""The media tree, and what is registered through it.

Every change of what an account has registered raises its registry version in the same transaction, and the changed pictures carry the
new version: who has seen version n asks for what is above n.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import CTE, Select, func, literal, select, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.orm import Session, aliased

from core.errors import Conflict, Forbidden, InvalidInput, NotFound
from core.events import MEDIA, Key, MediaChanged
from core.models import Account, Media, Picture, Registration
from core.repo import messages, pictures
from core.repo.pictures import PictureDraft

RESERVED: Final = frozenset({"_move", "_matches"})
_SEGMENT_LENGTH: Final = 255
_PATH_LENGTH: Final = 8192


def clean_path(path: str) -> str:
    """The path in NFC, without slashes at its ends.

    Raises:
        InvalidInput: an empty, `.` or `..` segment, control characters, or too long.
    """
    segments = unicodedata.normalize("NFC", path.strip("/")).split("/")
    if any(not _is_name(segment) for segment in segments) or sum(map(len, segments)) > _PATH_LENGTH:
        raise InvalidInput(
            "a path has no empty, '.' or '..' segments, no control characters, and at most 255 characters a segment", code="bad_path"
        )
    return "/".join(segments)


def get(tx: Session, account_id: int, path: str) -> Media:
    """The node at the path.

    Raises:
        Forbidden: not below the account's home directory (whether anything is there or not).
        NotFound: nothing there.
    """
    node = find(tx, account_id, path)
    if node is None:
        raise NotFound("there is no media at this path", code="media_not_found")
    return node


def find(tx: Session, account_id: int, path: str) -> Media | None:
    """Like `get`, None instead of NotFound."""
    path = clean_path(path)
    _home_of(tx, account_id, path)
    return tx.scalar(select(Media).where(Media.path == path, Media.account_id == account_id))


def creatable(tx: Session, account_id: int, path: str) -> str:
    """The path as it will be stored.

    Raises:
        Forbidden: not below the account's home directory.
        InvalidInput: not a path, or with a reserved name.
    """
    path = clean_path(path)
    _home_of(tx, account_id, path)
    if RESERVED.intersection(path.split("/")):
        raise InvalidInput("the names _move and _matches are reserved", code="reserved_name")
    return path


def homes(account_id: int) -> Select[Media]:
    """The home directories that the account sees."""
    return select(Media).where(Media.account_id == account_id, Media.parent_id.is_(None))


def children(folder_id: int) -> Select[Media]:
    return select(Media).where(Media.parent_id == folder_id)


def subtree(media_id: int) -> CTE:
    """A recursive table with one column `id`: the node and everything below it."""
    nodes = select(Media.id).where(Media.id == media_id).cte("subtree", recursive=True)
    below = aliased(Media)
    return nodes.union_all(select(below.id).join(nodes, below.parent_id == nodes.c.id))


def create_folder(tx: Session, account_id: int, path: str, now: datetime) -> tuple[Media, bool]:
    """The folder at the path and whether it is new; missing parents are made.

    Raises:
        Conflict: a picture is there, or on the way.
        Forbidden, InvalidInput: the path is not for this account, or not one.
    """
    path = creatable(tx, account_id, path)
    _locked(tx, account_id)
    return _folder(tx, account_id, path, now)


def put_picture(tx: Session, account_id: int, path: str, draft: PictureDraft, now: datetime) -> tuple[Media, bool]:
    """Registers a picture at the path: (its media row, False when it replaced another).

    Raises:
        Conflict: a folder is there, or a picture on the way; of a transactional draft the picture is not registered (code
            original_not_registered).
        Forbidden: the path is not for this account; a quota would be exceeded (code quota_exceeded).
        InvalidInput: no path.
    """
    path = creatable(tx, account_id, path)
    account = _locked(tx, account_id)
    if path == account.home:
        raise Conflict("this is a home directory, a folder", code="is_folder")
    old = find(tx, account_id, path)
    if old is not None and old.type == "folder":
        raise Conflict("there is a folder at this path", code="is_folder")
    parent, _ = _folder(tx, account_id, path.rpartition("/")[0], now)
    picture = pictures.put(tx, account, draft, now)
    touched = {old.registration.picture_id} if old is not None and old.registration is not None else set()
    if old is not None:
        tx.delete(old)
        tx.flush()
    registration = pictures.put_registration(tx, picture, draft, now)
    media = Media(
        account_id=account_id,
        parent_id=parent.id,
        path=path,
        type="image",
        registration_id=registration.id,
        registration=registration,
        exclusive=draft.exclusive,
        disk_usage=draft.disk_usage,
        created=now,
    )
    tx.add(media)
    tx.flush()
    _check_quota(tx, account)
    _announce(tx, account, {*touched, picture.id}, now)
    return media, old is None


def delete(tx: Session, account_id: int, path: str, now: datetime) -> list[str]:
    """Deletes the node and everything below it; the keys of objects that nothing needs any more (remove them after the commit).

    Raises:
        Forbidden: a home directory, or not below the account's.
        NotFound: nothing there.
    """
    account = _locked(tx, account_id)
    node = get(tx, account_id, path)
    if node.parent_id is None:
        raise Forbidden("a home directory cannot be deleted", code="home_directory")
    nodes = subtree(node.id)
    registrations = select(Media.registration_id).where(Media.id.in_(select(nodes.c.id)), Media.registration_id.is_not(None))
    touched = set(tx.scalars(select(Registration.picture_id).where(Registration.id.in_(registrations)).distinct()))
    tx.execute(sql_delete(Media).where(Media.id.in_(select(nodes.c.id))).execution_options(synchronize_session=False))
    tx.expire_all()
    _announce(tx, account, touched, now)
    return [key for picture_id in sorted(touched) for key in pictures.unneeded(tx, picture_id)]


def move(tx: Session, account_id: int, path: str, to: str, now: datetime) -> Media:
    """Gives a node and everything below it another place; missing parents are made. Registrations and matches stay as they are.

    Raises:
        NotFound: nothing is there.
        Conflict: something is at the new place, or it lies inside the node.
        Forbidden: a home directory, or not below the account's.
        InvalidInput: not a path, or with a reserved name.
    """
    _locked(tx, account_id)
    node = get(tx, account_id, path)
    to = creatable(tx, account_id, to)
    if node.parent_id is None:
        raise Forbidden("a home directory cannot be moved", code="home_directory")
    if f"{to}/".startswith(f"{node.path}/"):
        raise Conflict("a folder cannot be moved into itself", code="into_itself")
    if find(tx, account_id, to) is not None:
        raise Conflict("there is something at the new path", code="path_taken")
    parent, _ = _folder(tx, account_id, to.rpartition("/")[0], now)
    nodes = subtree(node.id)
    moved = update(Media).where(Media.id.in_(select(nodes.c.id))).values(path=literal(to) + func.substr(Media.path, len(node.path) + 1))
    tx.execute(moved.execution_options(synchronize_session=False))
    tx.expire_all()
    node.parent_id = parent.id
    tx.flush()
    return node


def changed(tx: Session, picture_id: int) -> MediaChanged:
    """The picture's whole current state, as the matchers need it. Raises NotFound."""
    picture = tx.get(Picture, picture_id)
    if picture is None:
        raise NotFound(f"no registered picture {picture_id}", code="picture_not_found")
    return _states(tx, [picture])[0]


def changes(tx: Session, account_id: int, since_version: int, to_version: int | None = None) -> list[MediaChanged]:
    """Every picture of the account whose last change came after the one version (and not after the other), oldest change first."""
    later = select(Picture).where(Picture.account_id == account_id, Picture.version > since_version)
    if to_version is not None:
        later = later.where(Picture.version <= to_version)
    return _states(tx, tx.scalars(later.order_by(Picture.version, Picture.id)).all())


def registered(tx: Session, account_id: int) -> list[int]:
    """The ids of the pictures that the account has registered."""
    return list(tx.scalars(select(Picture.id).where(Picture.account_id == account_id, Picture.deleted.is_(False))))


def states(tx: Session, picture_ids: Sequence[int]) -> list[MediaChanged]:
    """The whole current state of those that exist, in no order."""
    return _states(tx, pictures.by_ids(tx, picture_ids))


def linked(tx: Session, picture_id: int, key_id: str, *, key_detected: bool = False) -> list[Media]:
    """The media that a find of a picture is about; see `concerned`."""
    return concerned(of_pictures(tx, [picture_id]).get(picture_id, ()), key_id, key_detected=key_detected)


def concerned(nodes: Iterable[Media], key_id: str, *, key_detected: bool = False) -> list[Media]:
    """Those of a picture's media that a find is about.

    With a key, those registered with it. Without, the plain ones; the keyed ones too when no key of the picture was detected in the found
    bytes (`key_detected`).
    """
    if not key_id and not key_detected:
        return list(nodes)
    return [node for node in nodes if node.registration is not None and node.registration.key_id == key_id]


def of_pictures(tx: Session, picture_ids: Iterable[int], *, lock: bool = False) -> dict[int, list[Media]]:
    """Picture id -> its media, by id.

    Args:
        lock: rows stay locked until the transaction ends (SQLite locks as a whole); always in the order of their ids, so that two who
            lock some of the same wait for each other and not for ever.
    """
    found: dict[int, list[Media]] = {}
    for some in pictures.batched(sorted(set(picture_ids))):
        query = select(Media, Registration.picture_id).join(Registration, Media.registration_id == Registration.id)
        query = query.where(Registration.picture_id.in_(some)).order_by(Registration.picture_id, Media.id)
        if lock:
            query = query.with_for_update(of=Media, key_share=True)
        for node, picture_id in tx.execute(query):
            found.setdefault(picture_id, []).append(node)
    return found


def totals(tx: Session, account_id: int) -> tuple[int, int]:
    """(images, their bytes) of the account's tree."""
    query = select(func.count(), func.coalesce(func.sum(Media.disk_usage), 0))
    count, size = tx.execute(query.where(Media.account_id == account_id, Media.type == "image")).one()
    return count, int(size)


def _is_name(segment: str) -> bool:
    if segment in ("", ".", "..") or len(segment) > _SEGMENT_LENGTH:
        return False
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in segment)


def _home_of(tx: Session, account_id: int, path: str) -> str:
    home = tx.scalar(select(Account.home).where(Account.id == account_id))
    if home is None or path.partition("/")[0] != home:
        raise Forbidden("this home directory is not yours", code="foreign_home")
    return home


def _locked(tx: Session, account_id: int) -> Account:
    """Who changes a tree or a registry locks its account first, so changes come one by one, and versions in the order of commits.

    Not against foreign keys: who records a match holds its media and then refers to the account.
    """
    account = tx.get(Account, account_id, with_for_update={"key_share": True}, populate_existing=True)
    if account is None:
        raise NotFound(f"no account {account_id}", code="account_not_found")
    return account


def _folder(tx: Session, account_id: int, path: str, now: datetime) -> tuple[Media, bool]:
    """The folder, made with its parents if need be; from the home directory down, without recursion (a path may be deep)."""
    names = path.split("/")
    paths = ["/".join(names[:depth]) for depth in range(1, len(names) + 1)]
    there = {node.path: node for some in pictures.batched(paths) for node in tx.scalars(select(Media).where(Media.path.in_(some)))}
    parent, created = there[paths[0]], False
    for step in paths[1:]:
        node = there.get(step)
        if node is None:
            node, created = Media(account_id=account_id, parent_id=parent.id, path=step, type="folder", created=now), True
            tx.add(node)
            tx.flush()
        elif node.type != "folder":
            raise Conflict(f"there is a picture at {step}, not a folder", code="is_media")
        parent = node
    return parent, created


def _check_quota(tx: Session, account: Account) -> None:
    if account.image_quota is None and account.disk_quota is None:
        return
    count, size = totals(tx, account.id)
    for what, now, most in (("pictures", count, account.image_quota), ("bytes", size, account.disk_quota)):
        if most is not None and now > most:
            raise Forbidden(f"this account may have {most} {what}", code="quota_exceeded")


def _announce(tx: Session, account: Account, picture_ids: Iterable[int], now: datetime) -> None:
    """These pictures have changed: a new version, `deleted` as it is now, and a message for each."""
    rows = [picture for picture_id in sorted(picture_ids) if (picture := tx.get(Picture, picture_id)) is not None]
    if not rows:
        return
    account.registry_version += 1
    alive = set(pictures.in_use(tx, [picture.id for picture in rows]).values())
    for picture in rows:
        picture.version = account.registry_version
        picture.deleted = picture.id not in alive
        messages.add(tx, MEDIA, picture.id, now)
    tx.flush()


def _states(tx: Session, rows: Sequence[Picture]) -> list[MediaChanged]:
    used = pictures.in_use(tx, [picture.id for picture in rows])
    return [
        MediaChanged(
            account=picture.account_id,
            version=picture.version,
            picture=picture.id,
            fingerprint_key=picture.fingerprint_key,
            keys=tuple(Key(r.id, r.key_id, r.lmk_key) for r in sorted(picture.registrations, key=lambda r: r.id) if r.id in used),
            deleted=picture.deleted,
            small_key=picture.small_key,
        )
        for picture in rows
    ]
