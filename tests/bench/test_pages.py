"""Tables go where the page names them, and nothing else of it changes."""

from __future__ import annotations

from bench.pages import filled

_PAGE = "# Figures\n<!-- table: a -->\nold\n<!-- end -->\ntext\n<!-- table: b -->\n<!-- end -->\nend\n"


def test_a_table_replaces_the_one_before() -> None:
    once = filled(_PAGE, {"a": ["| x |", "|---|"]})
    assert once == "# Figures\n<!-- table: a -->\n\n| x |\n|---|\n\n<!-- end -->\ntext\n<!-- table: b -->\n<!-- end -->\nend\n"
    assert filled(once, {"a": ["| x |", "|---|"]}) == once


def test_what_was_not_measured_stays() -> None:
    assert filled(_PAGE, {"c": ["| x |"]}) == _PAGE
