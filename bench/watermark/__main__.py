"""How well marks survive, how little they are seen, what they cost and whom they stop, beside the peers, in one run; JSON and a Markdown
table in bench-out/.

    python -m bench.watermark [--photos DIR] [--only PART] [--quick]
    python -m bench.watermark --dev --photos DIR [--attacks jpeg_10,crop_10] [--sample 20] [--payload N]

Without a folder the pictures are those that come with scikit-image, and generated ones. Of a folder every third photo, in order of the
names, is held out, which only --held-out asks for, once, at the end. A run that was cut goes on where it was. --dev prints what each attack
leaves of the mark, on the screen alone.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Final

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the libraries below load

from bench.copies.run import spread_out
from bench.copies.sets import Part, sets
from bench.copies.work import tell
from bench.pages import fill
from bench.parts import attacks_of, goal_table, measure, parser, results, summarise
from bench.watermark import alarms, comparison, costs, dev, goals, payload, robustness, security, seen
from bench.watermark.attacks import EXTREMES
from bench.watermark.run import Run

PARTS: Final[Mapping[str, ModuleType]] = {
    "robustness": robustness,
    "quality": seen,
    "payload": payload,
    "costs": costs,
    "alarms": alarms,
    "peers": comparison,
    "security": security,
}
_PACKAGES: Final = ("pillow", "numpy", "opencv-python-headless", "scikit-image", "onnxruntime", "pywavelets")
_QUICK: Final = ("jpeg_50", "jpeg_10", "resize_25", "crop_25", "crop_10", "rotate_15", "page", "posted_twice")
_FEW: Final = 6
"""Pictures of a quick run."""


def main() -> None:
    options = _parser().parse_args()
    run = _run(options)
    if options.docs:
        _document(run, options.docs)
        return
    if options.dev:
        print("\n".join(dev.table(*dev.look(run.pictures, run.attacks, options.payload))))
        return
    tables = {}
    for number, name in enumerate(wanted := options.only or tuple(PARTS), 1):
        tell(f"== {name}, part {number} of {len(wanted)}")
        tables[name] = measure(run, name, PARTS[name], _PACKAGES)
    summarise(run, tables, goals.GOALS, tuple(PARTS))


def _document(run: Run, docs: Path) -> None:
    """The tables of what was measured, of either part, into the pages; the plots beside them."""
    tables: dict[str, list[str]] = {}
    for part in (run, replace(run, part="held out")):
        found = results(part, tuple(PARTS))
        tables |= {f"{part.stem} {name}": PARTS[name].markdown(found[name]) for name in found}
        if "security" in found:
            tables |= {f"{part.stem} security {name}": lines for name, lines in security.tables(found["security"]).items()}
        tables |= {f"{part.stem} goals": goal_table(goals.GOALS, found)} if found else {}
        for name in found if part is run else ():
            if hasattr(PARTS[name], "plot"):
                PARTS[name].plot(found[name], docs / "benchmarks")
    for page in (docs / "benchmarks" / "watermark.md", docs / "security-of-the-mark.md"):
        fill(page, tables)


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__ or "", PARTS, "filigrane-bench-watermark")
    options.add_argument("--docs", type=Path, help="measure nothing; what was measured goes into the pages and plots of this folder")
    options.add_argument("--payload", type=int, help="with --dev: a number that the marks carry")
    return options


def _run(options: argparse.Namespace) -> Run:
    attacks = attacks_of(options.attacks, (*_QUICK, *EXTREMES) if options.quick else tuple(dev.SUITE), dev.SUITE)
    part: Part = "held out" if options.held_out else "dev"
    out = options.out / "quick" if options.quick else options.out
    return Run(
        pictures=spread_out(sets(options.photos, None, part).registered, options.sample or (_FEW if options.quick else 0)),
        part=part,
        attacks=attacks,
        quick=options.quick,
        cache=options.cache,
        out=out,
        plots=options.plots or out,
        contrib=options.contrib,
        peers=not options.alone,
    )


if __name__ == "__main__":
    main()
