"""Builds the native library beside its sources: `python hatch_build.py` by hand, hatchling for wheels and editable installs.

It is an extra: without a C compiler, or with one that fails, everything works by its pure form, only slower.
"""

from __future__ import annotations

import os
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE: Final = "matcher/copies/native"
# -ffp-contract=off: the same sums on every processor, whether or not it can multiply and add at once
FLAGS: Final = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared", "-Wall"]


class NoLibrary(Exception):
    """Why there is none."""


class NativeBuildHook(BuildHookInterface[Any]):
    """Puts the library into a wheel, whose tag then names the platform. An editable install finds it in its place."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        try:
            library = build(Path(self.root))
        except NoLibrary as reason:
            self.app.display_warning(f"filigrane: {reason}. It works without its native library, but searches for copies are slower.")
            return
        if version == "standard":
            build_data["artifacts"].append(f"/{NATIVE}/{library.name}")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def build(root: Path) -> Path:
    """Compiles the library in its place, which changes at once or not at all. Raises NoLibrary."""
    package = runpy.run_path(str(root / NATIVE / "__init__.py"))
    folder = root / NATIVE
    library = folder / str(package["LIBRARY"].name)
    files = [str(path) for path in package["sources"](folder) if path.suffix == ".c"]
    try:
        with tempfile.TemporaryDirectory(prefix=".build-", dir=folder) as draft:
            made = Path(draft) / library.name
            _run([*_compiler(), *FLAGS, f'-DFILIGRANE_BUILD="{package["build_id"](folder)}"', "-o", str(made), *files, "-lm"])
            made.replace(library)
    except OSError as error:
        raise NoLibrary(f"the native library cannot be written: {error}") from error
    return library


def _compiler() -> list[str]:
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    if shutil.which(command[0]) is None:
        raise NoLibrary(f"there is no C compiler ({command[0]}) for the native library")
    return command


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise NoLibrary(f"the native library cannot be compiled:\n{shlex.join(command)}\n{done.stderr}")
    sys.stderr.write(done.stderr)


def main() -> int:
    try:
        library = build(Path(__file__).resolve().parent)
    except NoLibrary as reason:
        sys.stderr.write(f"{reason}\n")
        return 1
    sys.stdout.write(f"{library}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
