"""The ledger of the long run: what was done is not done again, and the report adds up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.long import report_of

pytest_plugins = ["pytester"]
TESTS = """
import pytest

@pytest.mark.parametrize("seed", range(3))
def test_kill(seed, record_property):
    '''G00: a kill.

    And more.'''
    record_property("acknowledged", 10 + seed)
    record_property("recovery seconds", 1.5 * seed)
    with open("ran", "a") as file:
        file.write(f"{seed}\\n")
    assert seed != 1 or open("ran").read().count("1") > 1
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("FILIGRANE_REVISION", "r1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makepyfile(test_it=TESTS)
    pytester.mkdir("docs")
    return pytester


def long(pytester: pytest.Pytester) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "tests.long", "--ledger", "ledger.jsonl")


def test_a_run_goes_on_with_what_has_not_passed(run: pytest.Pytester) -> None:
    long(run).assert_outcomes(passed=2, failed=1)
    long(run).assert_outcomes(passed=1, deselected=2)
    assert (run.path / "ran").read_text().split() == ["0", "1", "2", "1"]
    report = (run.path / "docs/test-long.md").read_text()
    assert "3 runs, 3 passed, 0 failed" in report
    assert "| G00: a kill. | 3 | 3 | 0 | acknowledged 33, recovery seconds 3 |" in report


def test_another_revision_begins_anew(run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    long(run).assert_outcomes(passed=2, failed=1)
    monkeypatch.setenv("FILIGRANE_REVISION", "r2")
    long(run).assert_outcomes(passed=3)


def test_half_a_line_of_the_ledger_is_left_out(run: pytest.Pytester) -> None:
    long(run)
    ledger = run.path / "ledger.jsonl"
    ledger.write_text(ledger.read_text()[:-20])
    long(run).assert_outcomes(passed=2, deselected=1)
    long(run).assert_outcomes(deselected=3)


def test_the_report_counts_the_last_outcome() -> None:
    row = {"test": "t.py::test_x[1]", "outcome": "failed", "seconds": 2.0, "figures": {"lost": 1}}
    again = {**row, "outcome": "passed", "figures": {"lost": 0}}
    report = report_of([row, again], {}, "abc")
    assert "| t.py::test_x | 1 | 1 | 0 | lost 0 | 2.0 |" in report
