"""The systemd unit says only what the program knows."""

from __future__ import annotations

import shlex
from pathlib import Path

from core.settings import PREFIX, Settings
from filigrane.cli import parser
from filigrane.supervisor import GRACE

UNIT = Path(__file__).parents[2] / "deploy" / "filigrane.service"


def values(name: str) -> list[str]:
    return [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.partition("=")[0] == name]


def test_its_command_can_be_said() -> None:
    (command,) = values("ExecStart")
    program, *arguments = shlex.split(command)
    assert program.endswith("/filigrane")
    assert parser().parse_args(arguments).port == 8000


def test_its_settings_exist() -> None:
    names = {value.partition("=")[0] for value in values("Environment")}
    assert names
    assert names <= {PREFIX + name.upper() for name in Settings.model_fields}


def test_it_waits_for_the_drain() -> None:
    (seconds,) = values("TimeoutStopSec")
    assert int(seconds) > GRACE
