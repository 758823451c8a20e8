"""The native library: built where it can be, told apart from a stale one, done without where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from hatch_build import NATIVE, NoLibrary, build
from matcher.copies.native import library, load

TOP = Path(__file__).parents[3]
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What a wheel is made of, without a built library, and with one C file, which takes no time to compile."""
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(TOP / name, tmp_path / name)
    shutil.copytree(TOP / "matcher", tmp_path / "matcher", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for path in (tmp_path / NATIVE).glob("*.c"):
        if path.name != "build.c":
            path.unlink()
    return tmp_path


def wheel(tree: Path, compiler: str) -> tuple[Path, str]:
    """The wheel that hatchling builds, and what it said."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tree / "dist")]
    done = subprocess.run(command, cwd=tree, env=os.environ | {"CC": compiler}, capture_output=True, text=True, check=True)
    (made,) = (tree / "dist").glob("*.whl")
    return made, done.stdout + done.stderr


@needs_compiler
def test_what_is_installed_here_was_built() -> None:
    assert library() is not None, "python hatch_build.py builds it"


def test_a_variable_forces_the_pure_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILIGRANE_PURE", "1")
    assert library() is None


@needs_compiler
def test_a_stale_library_is_noticed_and_not_used(tree: Path) -> None:
    made = build(tree)
    with (tree / NATIVE / "build.c").open("a") as file:
        file.write("/* another line */\n")
    with pytest.warns(RuntimeWarning, match=r"built from other sources.*hatch_build"):
        assert load(made) is None


def test_what_is_no_library_is_noticed_and_not_used(tree: Path) -> None:
    other = tree / NATIVE / "native.so"
    other.write_bytes(b"no library")
    with pytest.warns(RuntimeWarning, match="not used"):
        assert load(other) is None


@pytest.mark.parametrize(("compiler", "says"), [("/nowhere/cc", "no C compiler"), ("false", "cannot be compiled")])
def test_without_a_compiler_the_wheel_is_pure_and_says_so(tree: Path, compiler: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(NoLibrary, match=says):
        build(tree)
    made, said = wheel(tree, compiler)
    assert made.name.endswith("-py3-none-any.whl")
    assert says in said
    assert "slower" in said


@needs_compiler
def test_a_wheel_with_the_library_is_for_its_platform_and_works(tree: Path, tmp_path: Path) -> None:
    made, _ = wheel(tree, "cc")
    assert "-py3-none-" in made.name
    assert not made.name.endswith("-any.whl")
    with ZipFile(made) as archive:
        archive.extractall(tmp_path / "installed")
    assert load(tmp_path / "installed" / NATIVE / "native.so") is not None
