"""`filigrane register`: pictures from files and folders into an account's media tree, marked first where that is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from api_shim.links import Links
from core import outbox
from core.errors import FiligraneError, InvalidInput
from core.services import Services
from filigrane.commands import calling, result, say
from filigrane.commands.matching import look_back
from matcher import registrar
from matcher.copies import plain
from matcher.copies.features import Fingerprint
from matcher.marking import marked
from matcher.sealing import AccountKeys
from matcher.watermark import lmk
from matcher.watermark.payload import MAX_PAYLOAD
from matcher.watermark.registration import Registration

_SEALED: Final = ".lmk"
_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", _SEALED})
_MARKED: Final = frozenset({".tif", ".tiff"})
"""Of what is only registered with a mark."""


def register(given: argparse.Namespace) -> int:
    if given.watermark and given.out is None:
        raise InvalidInput("--watermark needs --out, a folder for the marked copies", code="out_missing")
    if given.payload is not None and not (given.watermark and 0 <= given.payload <= MAX_PAYLOAD):
        raise InvalidInput(f"--payload is a number from 0 to {MAX_PAYLOAD}, and needs --watermark", code="payload_invalid")
    files = list(pictures(given.paths, given.out if given.watermark else None))
    with calling(given) as caller:
        folder = "/".join(part for part in (caller.account.home, given.to.strip("/")) if part)
        done = []
        for number, (file, name) in enumerate(files, 1):
            marking = Marking(given.out / name, given.payload) if given.watermark and file.suffix.lower() != _SEALED else None
            done.append(_try(caller.services, caller.links, caller.account.id, file, f"{folder}/{name}", marking))
            said = done[-1]["error"]["details"] if "error" in done[-1] else done[-1].get("note")
            say(f"{number}/{len(files)} {file}" + (f": {said}" if said else ""))
        outbox.drain(caller.services)
        look_back(caller)
    result(done)
    return 0 if all("error" not in entry for entry in done) else 1


def pictures(paths: list[Path], out: Path | None = None) -> Iterator[tuple[Path, str]]:
    """(file, name in the media tree): a file under its name, a folder's files under theirs within it, without the folder's own. Where
    they are marked, `out` is the folder of the copies: what lies there within another folder was marked before.

    Raises InvalidInput: a path is not there, or a folder has no pictures.
    """
    for path in paths:
        if path.is_file():
            yield path, path.name
            continue
        found = sorted(file for file in path.rglob("*") if _is_meant(file, path, out))
        if not found:
            raise InvalidInput(f"{path}: {'no pictures in this folder' if path.is_dir() else 'no such file'}", code="file_unreadable")
        yield from ((file, file.relative_to(path).as_posix()) for file in found)


def _is_meant(file: Path, folder: Path, out: Path | None) -> bool:
    kinds = _SUFFIXES if out is None else _SUFFIXES | _MARKED
    copied = out is not None and out.resolve() != folder.resolve() and file.resolve().is_relative_to(out.resolve())
    return file.suffix.lower() in kinds and file.is_file() and not copied


class Marking(NamedTuple):
    """Where the marked copy goes, and the number that it carries."""

    copy: Path
    payload: int | None = None


class RegisteredFile(NamedTuple):
    """`registration`: of the watermark, where one was made; `note`: as of `plain.note`."""

    registration: Registration | None
    note: str | None


def register_file(services: Services, account_id: int, file: Path, path: str, marking: Marking | None = None) -> RegisteredFile:
    """Registers one picture at the path; with `marking`, with the key of a new watermark, and the marked copy is written first.

    Raises:
        InvalidImage, UnsupportedMedia: not a picture that can be read, or be marked.
        InvalidInput, Conflict: nothing can be put at this path, or the copy would be written over the picture.
    """
    data = _read(file)
    if lmk.is_sealed(data):
        return _register_mark(services, account_id, data, path)
    if marking is None:
        registration, prepared = None, registrar.prepare(data)
    else:
        if marking.copy.resolve() == file.resolve():
            raise InvalidInput(f"{file} would be written over by its marked copy", code="out_is_input")
        copy, registration = marked(data, payload=marking.payload)
        prepared = registrar.prepare(data, registration)
        _write(marking.copy, copy)
    registrar.register(services, account_id, path, prepared, disk_usage=len(data), watermark=registration)
    return RegisteredFile(registration, plain.note(Fingerprint.from_bytes(prepared.fingerprint)))


def _register_mark(services: Services, account_id: int, data: bytes, path: str) -> RegisteredFile:
    """The picture whose registration was sealed to the account. Raises InvalidInput, Conflict."""
    registration = AccountKeys(services).unseal(account_id, data)
    registrar.register_mark(services, account_id, path, registration, registrar.here, disk_usage=len(data))
    return RegisteredFile(registration, None)


def _try(services: Services, links: Links, account_id: int, file: Path, path: str, marking: Marking | None) -> dict[str, Any]:
    try:
        registration, note = register_file(services, account_id, file, path, marking)
    except FiligraneError as error:
        return {"file": str(file), "error": {"code": error.code, "details": error.details}}
    entry = {"file": str(file), "path": path, "url": links.media(path), "watermarked": registration is not None}
    if registration is not None:
        entry |= {"key_id": registration.key_id} | ({"marked": str(marking.copy)} if marking is not None else {})
    return entry | ({"note": note} if note is not None else {})


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}", code="file_unreadable") from error


def _write(path: Path, data: bytes) -> None:
    """The whole file or none."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise InvalidInput(f"cannot write {path}: {error.strerror}", code="file_unwritable") from error
