"""What the files in deploy/ are held against: commands, settings, ports and paths that the code knows."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from core.monitor import PATHS
from core.settings import PREFIX, Settings
from filigrane.cli import parser
from filigrane.supervisor import GRACE

TOP = Path(__file__).parents[2]
DEPLOY = TOP / "deploy"
METRICS_PORT = 9100
API_PORT = 8000
USER = 10001
HEALTH_PATHS = PATHS[1:]
AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"}
"""What boto3's usual chain reads."""


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def parsed(command: Sequence[str]) -> argparse.Namespace:
    """The command as the program takes it; argparse ends the test where it does not."""
    return parser().parse_args([str(word) for word in command])


def check_settings(names: Iterable[str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | AWS
    assert set(names) <= known, set(names) - known


def check_grace(seconds: float) -> None:
    """Who is told to stop may drain."""
    assert seconds > GRACE
