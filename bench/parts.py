"""What benchmarks of several parts share: each part's JSON and table, and the table of goals."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from bench.copies.sets import Part

Results = Mapping[str, Mapping[str, Any]]
"""What the parts returned, by name."""


class Goal(NamedTuple):
    """`measured` raises KeyError where the part did not run; `reached` says whether that is enough."""

    what: str
    reach: str
    measured: Callable[[Results], Any]
    reached: Callable[[Any], bool]


class Files(Protocol):
    """Where a run leaves what it measured. `stem`: how its files begin; `plots`: for what the documentation shows."""

    @property
    def part(self) -> Part: ...
    @property
    def out(self) -> Path: ...
    @property
    def plots(self) -> Path: ...
    @property
    def quick(self) -> bool: ...
    @property
    def stem(self) -> str: ...


def goal_table(goals: Sequence[Goal], results: Results) -> list[str]:
    """Of the goals whose parts ran."""
    lines = ["| what | reach | measured | reached |", "|---|---|---|---|"]
    for goal in goals:
        try:
            value = goal.measured(results)
        except KeyError:
            continue
        lines.append(f"| {goal.what} | {goal.reach} | {value} | {'yes' if goal.reached(value) else '**no**'} |")
    return lines


def measure(run: Files, name: str, part: Any, packages: Sequence[str]) -> list[str]:
    """The part's table, which is written beside its JSON. `part` has `run`, `markdown` and perhaps `plot`."""
    begun = time.perf_counter()
    result = part.run(run)
    result |= {"seconds": round(time.perf_counter() - begun, 1), "part": run.part, "versions": _versions(packages)}
    run.out.mkdir(parents=True, exist_ok=True)
    _json(run, name).write_text(json.dumps(result, indent=1) + "\n")
    if run.part == "dev" and hasattr(part, "plot"):
        part.plot(result, run.plots)
    lines: list[str] = part.markdown(result)
    print("\n".join([f"## {name}", "", *lines, ""]), flush=True)
    return lines


def summarise(run: Files, tables: Mapping[str, list[str]], goals: Sequence[Goal], names: Sequence[str]) -> None:
    """One page of what ran now, after the goals, which count what earlier runs left here too."""
    reached = goal_table(goals, results(run, names))
    parts = [line for name, lines in tables.items() for line in ("", f"## {name}", "", *lines)]
    (run.out / f"{run.stem}.md").write_text("\n".join([*reached, *parts]) + "\n")
    few = ["A quick run, on few pictures: the figures are rough.", ""] if run.quick else []
    print("\n".join(["## goals", "", *few, *reached, "", f"All of it is in {run.out / run.stem}.md"]), flush=True)


def results(run: Files, names: Sequence[str]) -> Results:
    """What this run and earlier ones left here."""
    files = {name: _json(run, name) for name in names}
    return {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}


def _json(run: Files, name: str) -> Path:
    return run.out / f"{run.stem}-{name}.json"


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {dist.name.lower(): dist.version for dist in distributions() if dist.name}
    return {"python": platform.python_version(), **{name: found[name] for name in packages if name in found}}
