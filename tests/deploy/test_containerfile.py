"""The images: what is copied exists, what is run can be said, and nothing runs as root."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.deploy.reading import API_PORT, DEPLOY, METRICS_PORT, TOP, USER, check_settings, parsed

IMAGE = DEPLOY / "Containerfile"
IMAGES = [IMAGE, DEPLOY / "versitygw.Containerfile"]


def instructions(path: Path) -> list[tuple[str, str]]:
    """(name, arguments), continued lines joined."""
    text = re.sub(r"\\\n", " ", "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#")))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def of(path: Path, name: str) -> list[str]:
    return [rest for each, rest in instructions(path) if each == name]


def test_what_is_copied_exists_and_is_all_that_is_installed() -> None:
    copied = [word for rest in of(IMAGE, "COPY") if not rest.startswith("--from") for word in rest.split()[:-1]]
    assert copied
    assert all((TOP / name).exists() for name in copied)
    project = tomllib.loads((TOP / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(copied)
    assert {project["project"]["readme"], *project["project"]["license-files"]} <= set(copied)


def test_what_is_installed_is_locked_with_hashes() -> None:
    installs = [run for run in of(IMAGE, "RUN") if "pip install" in run]
    assert len(installs) == 2
    assert "--require-hashes -r requirements.lock" in installs[0]
    assert "--no-deps" in installs[1]
    assert "--no-build-isolation" in installs[1]  # the lock has what builds it
    assert "\nhatchling==" in (TOP / "requirements.lock").read_text()


def test_its_commands_can_be_said() -> None:
    (entry,), (command,) = of(IMAGE, "ENTRYPOINT"), of(IMAGE, "CMD")
    assert json.loads(entry) == ["filigrane"]
    assert parsed(json.loads(command)).port == API_PORT
    (health,) = of(IMAGE, "HEALTHCHECK")
    program, *arguments = json.loads(health.partition("CMD ")[2])
    assert program == "filigrane"
    assert parsed(arguments).quick


def test_its_settings_and_ports_exist() -> None:
    variables = dict(pair.split("=", 1) for rest in of(IMAGE, "ENV") for pair in rest.split())
    check_settings(name for name in variables if name.startswith("FILIGRANE_"))
    assert variables["FILIGRANE_DATA"] in of(IMAGE, "VOLUME")
    assert variables["FILIGRANE_METRICS_LISTEN"].endswith(f":{METRICS_PORT}")
    assert of(IMAGE, "EXPOSE") == [f"{API_PORT} {METRICS_PORT}"]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_nobody_is_root_and_every_base_has_a_version(path: Path) -> None:
    names = [name for name, _ in instructions(path)]
    assert of(path, "USER") == [f"{USER}:{USER}"]
    assert names.index("USER") < names.index("ENTRYPOINT")
    for base in of(path, "FROM"):
        assert re.match(r"[\w./-]+:[\w.-]*(\d|bookworm-slim)", base), base
        assert "latest" not in base
