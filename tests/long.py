"""The full counts: `make test-long`. A pytest plugin that makes a long run resumable and writes its report.

Each test's outcome goes to a ledger as soon as it is known; a run that was cut goes on with the tests that have none. Tests put their
figures there with `record_property`: what was acknowledged, lost, doubled, refetched, and seconds of recovery. docs/test-long.md says what
came out; a new revision of the code begins a new ledger.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

REPORT: Final = Path("docs") / "test-long.md"
_WORST: Final = ("seconds", "megabytes")
"""Figures of these names are shown as the largest; others are added up."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ledger", type=Path, default=None, help="file of outcomes; those that stand there are not run again")


def pytest_configure(config: pytest.Config) -> None:
    path: Path | None = config.getoption("--ledger")
    if path is not None:
        config.pluginmanager.register(Ledger(path, _revision()), "ledger")


class Ledger:
    def __init__(self, path: Path, revision: str) -> None:
        self._path = path
        self._revision = revision
        self._rows = [row for row in _read(path) if row["revision"] == revision]
        self._docs: dict[str, str] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        done = {row["test"] for row in self._rows if row["outcome"] == "passed"}
        for item in items:
            self._docs[_function(item.nodeid)] = _first_line(item)
        skipped = [item for item in items if item.nodeid in done]
        if skipped:
            config.hook.pytest_deselected(items=skipped)
            items[:] = [item for item in items if item.nodeid not in done]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        row = {
            "revision": self._revision,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "test": report.nodeid,
            "outcome": report.outcome,
            "seconds": round(report.duration, 1),
            "figures": dict(report.user_properties),
        }
        self._rows.append(row)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def pytest_sessionfinish(self) -> None:
        REPORT.write_text(report_of(self._rows, self._docs, self._revision))


def report_of(rows: Sequence[Mapping[str, Any]], docs: Mapping[str, str], revision: str) -> str:
    """The ledger as a page: a row for each test, its seeds together. Of a test that was run again its last outcome counts."""
    last = {row["test"]: row for row in rows}
    of_test: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for name, row in last.items():
        of_test[_function(name)].append(row)
    head = [
        "# The long run",
        "",
        f"What `make test-long` said last, at revision {revision}: {len(last)} runs, {_count(last.values(), 'passed')} passed, "
        f"{_count(last.values(), 'failed')} failed, {_count(last.values(), 'skipped')} skipped, "
        f"{sum(row['seconds'] for row in last.values()) / 60:.0f} minutes. Figures are sums, of seconds and megabytes the worst.",
        "",
        "| Check | Runs | Passed | Failed | Figures | Slowest run, s |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(_line(docs.get(name) or name, some) for name, some in sorted(of_test.items()))]) + "\n"


def _line(what: str, rows: Sequence[Mapping[str, Any]]) -> str:
    figures = ", ".join(f"{name} {value:g}" for name, value in _figures(rows).items())
    cells = [what, len(rows), _count(rows, "passed"), _count(rows, "failed"), figures, max(row["seconds"] for row in rows)]
    return f"| {' | '.join(map(str, cells))} |"


def _figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in rows:
        for name, value in row["figures"].items():
            worst = any(name.endswith(unit) for unit in _WORST)
            found[name] = max(found.get(name, value), value) if worst else found.get(name, 0) + value
    return found


def _count(rows: Any, outcome: str) -> int:
    return sum(row["outcome"] == outcome for row in rows)


def _read(path: Path) -> list[dict[str, Any]]:
    """The whole lines. A run that was killed may have left half of one, which is taken away."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def _function(test: str) -> str:
    return re.sub(r"\[.*\]$", "", test)


def _first_line(item: pytest.Item) -> str:
    """What the test says of itself: its docstring's first line."""
    text = getattr(getattr(item, "function", None), "__doc__", None) or ""
    return text.strip().partition("\n")[0]


def _revision() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return os.environ.get("FILIGRANE_REVISION") or done.stdout.strip() or "unknown"
