"""The table of metrics in docs/metrics.md: what the modules of all roles declare."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Final

from core.telemetry import Figure, figures

_PACKAGES: Final = ("core", "crawler", "matcher", "scheduler", "api_shim")
_NO_MODULES: Final = (".migrations.", ".native.native.")
_OF_ALL: Final = ("loop", "part", "database", "store", "bus")


def table() -> str:
    """Every metric as a Markdown table, by role."""
    for package in _PACKAGES:
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not any(part in f"{module.name}." for part in _NO_MODULES):
                importlib.import_module(module.name)
    rows = sorted((_role(figure), figure) for figure in figures() if figure.name.startswith("filigrane_"))
    lines = ["| Role | Metric | Kind | Labels | What it is |", "|---|---|---|---|---|"]
    lines += [f"| {role} | `{f.name}` | {f.kind} | {', '.join(f.labels)} | {f.text} |" for role, f in rows]
    return "\n".join(lines) + "\n"


def _role(figure: Figure) -> str:
    role = figure.name.split("_")[1]
    return "all" if role in _OF_ALL else role
