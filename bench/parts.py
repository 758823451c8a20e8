"""What benchmarks of several parts share: their options, each part's JSON and table, and the table of goals."""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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


def parser(what: str, names: Iterable[str], cache: str) -> argparse.ArgumentParser:
    """The options of all of them. `what`: the benchmark's own description; `names`: its parts'; `cache`: of its folder for kept results."""
    options = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--photos", type=Path, help="pictures that are registered or marked, and attacked")
    options.add_argument("--held-out", action="store_true", help="the part of the folders that nothing was tuned on")
    options.add_argument("--only", action="append", choices=tuple(names), help="this part; may be given again")
    options.add_argument(
        "--quick", action="store_true", help="few attacks on few pictures, in minutes; its files go to a folder quick of --out"
    )
    options.add_argument("--dev", action="store_true", help="what attacks leave of filigrane's own, on the screen alone")
    options.add_argument("--alone", action="store_true", help="without the peers")
    options.add_argument("--attacks", type=lambda said: tuple(said.split(",")), help="some attacks, by name")
    options.add_argument("--sample", type=int, default=0, help="attack so many of the pictures, evenly spread")
    options.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / cache)
    options.add_argument("--out", type=Path, default=Path("bench-out"))
    options.add_argument("--plots", type=Path, help="folder for the plots; --out by default")
    options.add_argument("--contrib", type=Path, default=Path(".venv/contrib"), help="folder with what is installed apart")
    return options


def attacks_of(given: Sequence[str] | None, otherwise: Sequence[str], known: Iterable[str]) -> tuple[str, ...]:
    """The attacks that were asked for, or the others. Ends the program where one is not known."""
    if unknown := set(given or ()) - set(known):
        raise SystemExit(f"no attack is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return tuple(given or otherwise)


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
