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
import tempfile
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
from bench.parts import goal_table, measure, results, summarise
from bench.watermark import alarms, comparison, costs, dev, goals, payload, robustness, security, seen
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="pictures to mark and attack")
    parser.add_argument("--held-out", action="store_true", help="the part of the folder that nothing was tuned on")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be given again")
    parser.add_argument(
        "--quick", action="store_true", help="few attacks on few pictures, in minutes; its files go to a folder quick of --out"
    )
    parser.add_argument("--docs", type=Path, help="measure nothing; what was measured goes into the pages and plots of this folder")
    parser.add_argument("--dev", action="store_true", help="what each attack leaves, on the screen alone")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--attacks", type=lambda said: tuple(said.split(",")), help="some attacks, by name")
    parser.add_argument("--sample", type=int, default=0, help="mark so many of the pictures, evenly spread")
    parser.add_argument("--payload", type=int, help="with --dev: a number that the marks carry")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "filigrane-bench-watermark")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--plots", type=Path, help="folder for the plots; --out by default")
    parser.add_argument("--contrib", type=Path, default=Path(".venv/contrib"), help="folder with the peers")
    return parser


def _run(options: argparse.Namespace) -> Run:
    attacks = options.attacks or ((*_QUICK, "crop_5", "thumbnail_100px") if options.quick else tuple(dev.SUITE))
    if unknown := set(attacks) - set(dev.SUITE):
        raise SystemExit(f"no attack is called {', '.join(sorted(unknown))}; there are {', '.join(dev.SUITE)}")
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
