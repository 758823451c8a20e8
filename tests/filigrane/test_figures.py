"""The table of metrics is the code's."""

from __future__ import annotations

from pathlib import Path

from core.telemetry import figures
from filigrane.figures import table


def test_the_documentation_has_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert page.read_text().endswith("\n\n" + table()), "docs/metrics.md has to end with filigrane.figures.table()"


def test_no_label_takes_what_the_world_makes_up() -> None:
    table()
    labels = {label for figure in figures() for label in figure.labels}
    assert labels.isdisjoint({"url", "domain", "host", "account", "session", "path", "key", "address"})
