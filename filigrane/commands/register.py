"""`filigrane register`: pictures from files and folders into an account's media tree, marked first where that is asked for."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from PIL import ExifTags, Image

import filigrane
from api_shim.links import Links
from core import outbox
from core.errors import FiligraneError, InvalidInput
from core.services import Services
from filigrane.commands import calling, result, say
from filigrane.commands.matching import look_back
from matcher import registrar
from matcher.copies import plain
from matcher.copies.features import Fingerprint
from matcher.decode import decode
from matcher.pixels import U8
from matcher.sealing import AccountKeys
from matcher.watermark import lmk
from matcher.watermark.registration import Registration

_SEALED: Final = ".lmk"
_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", _SEALED})
_QUALITY: Final = 95


def register(given: argparse.Namespace) -> int:
    if given.watermark and given.out is None:
        raise InvalidInput("--watermark needs --out, a folder for the marked copies", code="out_missing")
    files = list(pictures(given.paths))
    with calling(given) as caller:
        folder = "/".join(part for part in (caller.account.home, given.to.strip("/")) if part)
        done = []
        for number, (file, name) in enumerate(files, 1):
            marked = given.out / name if given.watermark and file.suffix.lower() != _SEALED else None
            done.append(_try(caller.services, caller.links, caller.account.id, file, f"{folder}/{name}", marked))
            said = done[-1]["error"]["details"] if "error" in done[-1] else done[-1].get("note")
            say(f"{number}/{len(files)} {file}" + (f": {said}" if said else ""))
        outbox.drain(caller.services)
        look_back(caller)
    result(done)
    return 0 if all("error" not in entry for entry in done) else 1


def pictures(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """(file, name in the media tree): a file under its name, a folder's files under theirs within it, without the folder's own.

    Raises InvalidInput: a path is not there, or a folder has no pictures.
    """
    for path in paths:
        if path.is_file():
            yield path, path.name
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
        if not found:
            raise InvalidInput(f"{path}: {'no pictures in this folder' if path.is_dir() else 'no such file'}", code="file_unreadable")
        yield from ((file, file.relative_to(path).as_posix()) for file in found)


class RegisteredFile(NamedTuple):
    """`registration`: of the watermark, where one was made; `note`: as of `plain.note`."""

    registration: Registration | None
    note: str | None


def register_file(services: Services, account_id: int, file: Path, path: str, marked: Path | None = None) -> RegisteredFile:
    """Registers one picture at the path; with `marked`, with the key of a new watermark, and the marked copy is written there first.

    Raises:
        InvalidImage, UnsupportedMedia: not a picture that can be read.
        InvalidInput, Conflict: nothing can be put at this path.
    """
    data = _read(file)
    if lmk.is_sealed(data):
        return _register_mark(services, account_id, data, path)
    registration = None
    if marked is not None:
        rgb, registration = filigrane.embed(decode(data)[0])
        marked.parent.mkdir(parents=True, exist_ok=True)
        marked.write_bytes(like(data, rgb))
    prepared = registrar.prepare(data, registration)
    registrar.register(services, account_id, path, prepared, disk_usage=len(data), watermark=registration)
    return RegisteredFile(registration, plain.note(Fingerprint.from_bytes(prepared.fingerprint)))


def _register_mark(services: Services, account_id: int, data: bytes, path: str) -> RegisteredFile:
    """The picture whose registration was sealed to the account. Raises InvalidInput, Conflict."""
    registration = AccountKeys(services).unseal(account_id, data)
    registrar.register_mark(services, account_id, path, registration, registrar.here, disk_usage=len(data))
    return RegisteredFile(registration, None)


def like(original: bytes, rgb: U8) -> bytes:
    """The pixels as a file of the original's kind (GIF becomes PNG), with its profile and EXIF; they are upright already."""
    with Image.open(io.BytesIO(original)) as source:
        kind = source.format if source.format in ("JPEG", "PNG", "WEBP") else "PNG"
        exif = source.getexif()
        exif.pop(ExifTags.Base.Orientation, None)
        profile = source.info.get("icc_profile") if source.mode in ("RGB", "RGBA") else None
    kept: dict[str, Any] = {"exif": exif.tobytes()} if len(exif) else {}
    if profile:
        kept["icc_profile"] = profile
    how: dict[str, Any] = {"JPEG": {"quality": _QUALITY, "subsampling": 0}, "WEBP": {"quality": _QUALITY}}.get(kind, {})
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, kind, **how, **kept)
    return file.getvalue()


def _try(services: Services, links: Links, account_id: int, file: Path, path: str, marked: Path | None) -> dict[str, Any]:
    try:
        registration, note = register_file(services, account_id, file, path, marked)
    except FiligraneError as error:
        return {"file": str(file), "error": {"code": error.code, "details": error.details}}
    entry = {"file": str(file), "path": path, "url": links.media(path), "watermarked": registration is not None}
    if registration is not None:
        entry |= {"key_id": registration.key_id} | ({"marked": str(marked)} if marked is not None else {})
    return entry | ({"note": note} if note is not None else {})


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {file}: {error.strerror}", code="file_unreadable") from error
