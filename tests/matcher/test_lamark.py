from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from matcher.decode import decode
from matcher.lamark import put_both
from matcher.pixels import pixel_hash
from matcher.watermark.detect import detect
from matcher.watermark.lmk import new_private_key, public_to_der, public_to_pem, unseal
from matcher.watermark.registration import Registration
from tests.matcher.pictures import encoded, photo

_BANNER = "FILIGRANE image watermarking tool "
_PRIVATE = new_private_key()
_JPEG = encoded(photo(1, 900, 675), "JPEG", quality=85)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in.jpg").write_bytes(_JPEG)
    (tmp_path / "key.der").write_bytes(public_to_der(_PRIVATE.public_key()))
    return tmp_path


def _lamark(folder: Path, *arguments: str, said: str = "", before: Callable[[], None] | None = None) -> tuple[int, list[str]]:
    """Exit code, and what it says after its banner."""
    done = subprocess.run(
        [sys.executable, "-m", "matcher.lamark", *arguments], cwd=folder, capture_output=True, text=True, input=said, preexec_fn=before
    )
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith(_BANNER)
    assert "Independent JPEG Group" in lines[2]
    return done.returncode, lines[3:]


def _registration(path: Path) -> Registration:
    return unseal(path.read_bytes(), _PRIVATE)


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_picture_is_marked_and_nothing_is_said(folder: Path) -> None:
    assert _lamark(folder, "in.jpg", "out.jpg", "r.lmk", "key.der") == (0, [])
    assert _names(folder) == {"in.jpg", "key.der", "out.jpg", "r.lmk"}
    registration = _registration(folder / "r.lmk")
    assert registration.pixel_hash == pixel_hash(decode(_JPEG)[0])
    with Image.open(folder / "out.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (900, 675))
    assert detect(decode((folder / "out.jpg").read_bytes())[0], registration).marked


def test_options_stand_anywhere_and_files_are_called_whatever(folder: Path) -> None:
    names = ("zwei Wörter.jpg", "Ausgabe – 画像.jpg", "-r é.lmk", "Schlüssel.pem")
    (folder / "in.jpg").rename(folder / names[0])
    (folder / names[0]).chmod(0o400)
    (folder / names[3]).write_text(public_to_pem(_PRIVATE.public_key()))
    (folder / names[3]).chmod(0o400)
    assert _lamark(folder, "--payload", "77", names[0], names[1], "-t", "--", *names[2:]) == (0, [])
    registration = _registration(folder / names[2])
    assert registration.transactional
    assert (folder / names[2]).stat().st_size <= 512
    _lamark(folder, names[0], "full.jpg", "full.lmk", names[3], "--secret-file=-", said="Sésame\n")
    full = _registration(folder / "full.lmk")
    assert detect(decode((folder / names[1]).read_bytes())[0], registration.with_original(full)).payload == 77
    marked = decode((folder / "full.jpg").read_bytes())[0]
    assert [detect(marked, full, secret=secret).marked for secret in ("Sésame", "sésame", None)] == [True, False, False]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "in.jpg out.jpg r.lmk",
        "in.jpg out.jpg r.lmk key.der more",
        "-x in.jpg out.jpg r.lmk key.der",
        "--payload 16777216 in.jpg out.jpg r.lmk key.der",
        "--payload -1 in.jpg out.jpg r.lmk key.der",
        "--payload x in.jpg out.jpg r.lmk key.der",
        "--secret= in.jpg out.jpg r.lmk key.der",
        "--secret a --secret-file b in.jpg out.jpg r.lmk key.der",
        "in.jpg out.jpg out.jpg key.der",
        "in.jpg out.jpg key.der key.der",
        "in.jpg out.jpg in.jpg key.der",
        "in.jpg out.jpg ../{folder}/in.jpg key.der",
        "in.jpg out.jpg ../{folder}/key.der key.der",
        "--batch . . lmk key.der",
        "--batch ../{folder} .. lmk key.der",
        "--batch . out r.lmk key.der more",
    ],
)
def test_wrong_arguments(folder: Path, arguments: str) -> None:
    code, said = _lamark(folder, *arguments.format(folder=folder.name).split())
    assert code == 1
    assert said[0].startswith("usage: lamark [options] <input.jpg> <output.jpg> <registration.lmk> <public_key.der>")
    assert said[-1].startswith("lamark: ")
    assert _names(folder) == {"in.jpg", "key.der"}


def test_help_and_version(folder: Path) -> None:
    assert _lamark(folder, "--version") == (0, [])
    code, said = _lamark(folder, "--help")
    assert code == 0
    assert any("--payload" in line for line in said)


@pytest.mark.parametrize(
    ("arguments", "details"),
    [
        ("missing.jpg out.jpg r.lmk key.der", "missing.jpg: No such file"),
        ("key.der out.jpg r.lmk key.der", "not a JPEG"),
        ("png.jpg out.jpg r.lmk key.der", "not a JPEG"),
        ("cut.jpg out.jpg r.lmk key.der", "cannot be decoded"),
        ("tiny.jpg out.jpg r.lmk key.der", "at least 64"),
        ("in.jpg out.jpg r.lmk in.jpg", "not a public key"),
        ("in.jpg out.jpg r.lmk missing.der", "missing.der: No such file"),
        ("in.jpg no/out.jpg r.lmk key.der", "no/out.jpg: No such file"),
        ("in.jpg out.jpg no/r.lmk key.der", "no/r.lmk: No such file"),
        ("in.jpg . r.lmk key.der", "is a folder"),
        ("--secret-file missing in.jpg out.jpg r.lmk key.der", "missing: No such file"),
        ("--batch missing out r key.der", "missing: not a folder"),
    ],
)
def test_what_goes_wrong_leaves_all_as_it_was(folder: Path, arguments: str, details: str) -> None:
    (folder / "png.jpg").write_bytes(encoded(photo(1), "PNG"))
    (folder / "cut.jpg").write_bytes(_JPEG[:5000])
    (folder / "tiny.jpg").write_bytes(encoded(photo(1, 100, 63), "JPEG"))
    for name in ("out.jpg", "r.lmk"):
        (folder / name).write_text("before")
    names = _names(folder)
    code, said = _lamark(folder, *arguments.split())
    assert code == 2
    assert details in said[0]
    assert len(said) == 1
    assert _names(folder) == names
    assert (folder / "out.jpg").read_text() == (folder / "r.lmk").read_text() == "before"


def test_a_full_disk(folder: Path) -> None:
    (folder / "out.jpg").write_text("before")
    code, said = _lamark(
        folder, "in.jpg", "out.jpg", "r.lmk", "key.der", before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
    )
    assert (code, said) == (2, ["lamark: out.jpg: File too large"])
    assert _names(folder) == {"in.jpg", "key.der", "out.jpg"}
    assert (folder / "out.jpg").read_text() == "before"


def test_files_are_replaced_where_there_are_no_links(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: Path, _target: Path) -> None:
        raise (PermissionError if source.exists() else FileNotFoundError)(1, "not here")

    monkeypatch.setattr(os, "link", link)
    for said in (b"new", b"newer"):
        put_both(folder / "out.jpg", said, folder / "r.lmk", said)
        assert (folder / "out.jpg").read_bytes() == (folder / "r.lmk").read_bytes() == said
    assert _names(folder) == {"in.jpg", "key.der", "out.jpg", "r.lmk"}


def test_it_opens_no_socket(folder: Path) -> None:
    code = "import socket, sys; socket.socket = None; from matcher.lamark import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, "in.jpg", "out.jpg", "r.lmk", "key.der"], cwd=folder, capture_output=True)
    assert done.returncode == 0
    assert (folder / "r.lmk").exists()


def test_a_picture_is_marked_in_its_place(folder: Path) -> None:
    assert _lamark(folder, "in.jpg", "in.jpg", "r.lmk", "key.der") == (0, [])
    assert detect(decode((folder / "in.jpg").read_bytes())[0], _registration(folder / "r.lmk")).marked


def test_a_folder_goes_on_where_it_was_left(folder: Path) -> None:
    pictures = folder / "pictures"
    (pictures / "below").mkdir(parents=True)
    for seed, name in enumerate(("a.jpg", "below/b.JPEG", "c.jpg")):
        (pictures / name).write_bytes(encoded(photo(seed), "JPEG"))
    (pictures / "broken.jpg").write_text("broken")
    (pictures / "notes.txt").write_text("no picture")
    arguments = ("--batch", "pictures", "pictures/out", "lmk", "key.der")
    code, said = _lamark(folder, *arguments)
    assert code == 2
    assert said == [
        "1/4 a.jpg: done",
        "2/4 below/b.JPEG: done",
        "3/4 broken.jpg: pictures/broken.jpg is not a JPEG file",
        "4/4 c.jpg: done",
        "lamark: 1 of 4 pictures could not be marked",
    ]
    assert _names(folder / "lmk") == {"a.jpg.lmk", "below/b.JPEG.lmk", "c.jpg.lmk"}
    assert detect(decode((pictures / "out/below/b.JPEG").read_bytes())[0], _registration(folder / "lmk/below/b.JPEG.lmk")).marked
    (folder / "lmk/c.jpg.lmk").unlink()
    (pictures / "broken.jpg").unlink()
    kept = (folder / "lmk/a.jpg.lmk").read_bytes()
    assert _lamark(folder, *arguments) == (0, ["1/3 a.jpg: done already", "2/3 below/b.JPEG: done already", "3/3 c.jpg: done"])
    assert (folder / "lmk/a.jpg.lmk").read_bytes() == kept
    assert os.access(folder / "lmk/c.jpg.lmk", os.R_OK)
