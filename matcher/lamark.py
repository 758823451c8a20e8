"""The `lamark` command: marks a JPEG file and writes its registration, sealed to an account's key. It needs no server and no network.

Exit codes: 0 done, 1 the arguments are wrong, 2 anything else. What is heavy is loaded only once the arguments are known to be right.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from core.version import version

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

OK: Final = 0
WRONG: Final = 1
FAILED: Final = 2
_BANNER: Final = """FILIGRANE image watermarking tool {version}
Copyright the authors of filigrane; Apache License 2.0
This software is based in part on the work of the Independent JPEG Group
"""
_USAGE: Final = """lamark [options] <input.jpg> <output.jpg> <registration.lmk> <public_key.der>
       lamark [options] --batch <input folder> <output folder> <registration folder> <public_key.der>"""
_MAX_PAYLOAD: Final = (1 << 24) - 1
_JPEG: Final = b"\xff\xd8\xff"
_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".jpe"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code; argparse itself exits with 1 for wrong usage."""
    sys.stderr.write(_BANNER.format(version=version()))
    given = _given(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(given)
    except KeyboardInterrupt:
        return _failed("interrupted")
    except Exception as error:  # whatever it is: 1 would say that the arguments are wrong
        return _failed(_details(error))


def _run(given: argparse.Namespace) -> int:
    from matcher.watermark.lmk import read_public_key

    output, registration, key_file = given.paths[-3:]
    key = read_public_key(_read(key_file))
    how = {"transactional": given.transactional, "payload": given.payload, "secret": _secret(given)}
    if given.batch is not None:
        return _batch(given.batch, output, registration, key, how)
    _mark(given.paths[0], output, registration, key, how)
    return OK


def _mark(source: Path, output: Path, registration: Path, key: RSAPublicKey, how: dict[str, Any]) -> None:
    """Both files, or neither. Raises OSError and WatermarkError."""
    from matcher.watermark.errors import PictureInvalid
    from matcher.watermark.lmk import seal
    from matcher.watermark.picture_file import mark_file

    data = _read(source)
    if not data.startswith(_JPEG):
        raise PictureInvalid(f"{source} is not a JPEG file")
    marked, made = mark_file(data, **how)
    put_both(output, marked, registration, seal(made, key))


def _batch(source: Path, output: Path, registrations: Path, key: RSAPublicKey, how: dict[str, Any]) -> int:
    """Every JPEG file of a folder. Those that have both files already are left as they are."""
    files = list(pictures(source, output))
    failed = 0
    for number, file in enumerate(files, 1):
        name = file.relative_to(source)
        marked, registration = output / name, registrations / f"{name}.lmk"
        try:
            if marked.exists() and registration.exists():
                said = "done already"
            else:
                for path in (marked, registration):
                    path.parent.mkdir(parents=True, exist_ok=True)
                _mark(file, marked, registration, key, how)
                said = "done"
        except (OSError, ValueError, MemoryError) as error:
            failed += 1
            said = _details(error)
        sys.stderr.write(f"{number}/{len(files)} {name}: {said}\n")
    return _failed(f"{failed} of {len(files)} pictures could not be marked") if failed else OK


def pictures(folder: Path, output: Path) -> Iterator[Path]:
    """The JPEG files in a folder and below, by their names, in order; not what lies in the output. Raises OSError."""
    if not folder.is_dir():
        raise NotADirectoryError(20, "not a folder", str(folder))
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() in _SUFFIXES and file.is_file() and output.resolve() not in file.resolve().parents:
            yield file


def put_both(first: Path, one: bytes, second: Path, two: bytes) -> None:
    """Writes two files: both whole, or neither, and then what was there before is there still. Raises OSError."""
    for path in (first, second):
        if path.is_dir():
            raise IsADirectoryError(21, "is a folder", str(path))
    drafts = [_beside(first), _beside(second)]
    before = _beside(second)
    try:
        _write(drafts[0], first, one)
        _write(drafts[1], second, two)
        _keep(second, before)
        drafts[1].replace(second)
        try:
            drafts[0].replace(first)
        except BaseException:
            _restore(second, before)
            raise
    finally:
        for path in (*drafts, before):
            path.unlink(missing_ok=True)


def _keep(path: Path, name: Path) -> None:
    """What is there also gets this name. Where files have one name only, as on most memory cards, it is copied."""
    try:
        os.link(path, name)
    except FileNotFoundError:
        return
    except OSError:
        shutil.copy2(path, name)


def _restore(path: Path, before: Path) -> None:
    if before.exists():
        before.replace(path)
    else:
        path.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".lamark-{secrets.token_hex(8)}")


def _write(draft: Path, path: Path, data: bytes) -> None:
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read()


def _secret(given: argparse.Namespace) -> str | None:
    if given.secret_file is None:
        return given.secret  # type: ignore[no-any-return]
    text = sys.stdin.read() if str(given.secret_file) == "-" else given.secret_file.read_text(encoding="utf-8")
    if not (secret := text.rstrip("\r\n")):
        raise ValueError("the file with the passphrase is empty")
    return str(secret)


def _failed(details: str) -> int:
    sys.stderr.write(f"lamark: {details}\n")
    return FAILED


def _details(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return "not enough memory" if isinstance(error, MemoryError) else str(error) or type(error).__name__


class _Parser(argparse.ArgumentParser):
    """Says everything on stderr, and exits with 1 for what it does not understand."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(WRONG, f"lamark: {message}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        sys.stderr.write(message.lstrip("\n"))


def _given(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="lamark", usage=_USAGE, allow_abbrev=False, description="Marks a JPEG file invisibly.")
    parser.add_argument("paths", nargs="*", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("-t", dest="transactional", action="store_true", help="transactional: a registration without the small picture")
    parser.add_argument("--payload", type=int, metavar="N", help=f"a number that the mark carries, 0 to {_MAX_PAYLOAD}")
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument("--secret", metavar="PASSPHRASE", help="what it takes to detect the mark; others on this machine can see it here")
    secret.add_argument("--secret-file", type=Path, metavar="FILE", help="the file that has the passphrase; - is standard input")
    parser.add_argument("--batch", type=Path, metavar="FOLDER", help="all JPEG files of a folder; those that are done already are left")
    parser.add_argument("--version", action="version", version="")
    given = parser.parse_intermixed_args(arguments)
    if (wrong := _wrong(given)) is not None:
        parser.error(wrong)
    return given


def _wrong(given: argparse.Namespace) -> str | None:
    expected = 4 if given.batch is None else 3
    if len(given.paths) != expected:
        return f"{expected} paths are expected, {len(given.paths)} given"
    output, registration, key = (path.resolve() for path in given.paths[-3:])
    if len({output, registration, key}) < 3 or (given.batch is None and given.paths[0].resolve() == registration):
        return "a file would be written over another"
    if given.batch is not None and given.batch.resolve().is_relative_to(output):
        return "the output folder is the input folder, or holds it"
    if given.payload is not None and not 0 <= given.payload <= _MAX_PAYLOAD:
        return f"a payload is a number from 0 to {_MAX_PAYLOAD}"
    return "the passphrase is empty" if given.secret == "" else None


if __name__ == "__main__":
    sys.exit(main())
