"""How well copies are found, and what it costs, beside the peers, in one run; JSON and a Markdown table in bench-out/.

    python -m bench.copies [--photos DIR] [--distractors DIR] [--same-scene DIR] [--only PART] [--quick]
    python -m bench.copies --dev --photos DIR --distractors DIR --attacks crop_10,rotate_45 --sample 20

Without folders the pictures are those that come with scikit-image, and generated ones. Of folders a part is held out: every third photo and
every sixth distractor, in order of their names, which only --held-out asks for, once, at the end. --dev prints filigrane's recall, fast.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the libraries below load

from bench.copies import augly_suite, calibration, costs, crawled, flat, goals, hostile, index, recall, scenes
from bench.copies.attacks import ATTACKS
from bench.copies.run import Run, spread_out
from bench.copies.sets import Part, Sets, sets
from bench.copies.work import tell

PARTS: Final[Mapping[str, ModuleType]] = {
    "recall": recall,
    "scenes": scenes,
    "calibration": calibration,
    "augly": augly_suite,
    "costs": costs,
    "flat": flat,
    "hostile": hostile,
    "crawled": crawled,
    "index": index,
}
_QUICK: Final = ("jpeg_10", "resize_160px", "crop_10", "mirror", "rotate_45", "overlay_30", "meme", "screenshot")
_FEW: Final = 12
"""Pictures that are attacked in a quick run, of twice as many that are registered."""
_FEW_DISTRACTORS: Final = 60


def main() -> None:
    options = _parser().parse_args()
    run = _run(options)
    if options.dev:
        print("\n".join(recall.markdown(recall.quick_look(run))))
        return
    tables = {}
    for number, name in enumerate(wanted := options.only or tuple(PARTS), 1):
        tell(f"== {name}, part {number} of {len(wanted)}")
        tables[name] = _measure(run, name, PARTS[name])
    _summarise(run, tables)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="pictures to register and attack")
    parser.add_argument("--distractors", type=Path, help="pictures that show none of them")
    parser.add_argument("--same-scene", type=Path, help="different photos of one scene; or folders with those of one scene each")
    parser.add_argument("--held-out", action="store_true", help="the part of the folders that nothing was tuned on")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be given again")
    parser.add_argument(
        "--quick", action="store_true", help="few attacks on few pictures, in minutes; its files go to a folder quick of --out"
    )
    parser.add_argument("--dev", action="store_true", help="filigrane's recall alone, on the screen alone")
    parser.add_argument("--alone", action="store_true", help="recall without the peers")
    parser.add_argument("--attacks", type=lambda said: tuple(said.split(",")), help="some attacks, by name")
    parser.add_argument("--sample", type=int, default=0, help="attack so many of the registered pictures")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "filigrane-bench-copies")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    parser.add_argument("--plots", type=Path, help="folder for the plots; --out by default")
    parser.add_argument("--contrib", type=Path, default=Path(".venv/contrib"), help="folder with opencv-contrib-python-headless")
    return parser


def _run(options: argparse.Namespace) -> Run:
    attacks = options.attacks or (_QUICK if options.quick else tuple(ATTACKS))
    if unknown := set(attacks) - set(ATTACKS):
        raise SystemExit(f"no attack is called {', '.join(sorted(unknown))}; there are {', '.join(ATTACKS)}")
    part: Part = "held out" if options.held_out else "dev"
    found = sets(options.photos, options.distractors, part)
    if options.quick:
        found = Sets(spread_out(found.registered, 2 * _FEW), spread_out(found.distractors, _FEW_DISTRACTORS))
    out = options.out / "quick" if options.quick else options.out
    return Run(
        sets=found,
        part=part,
        attacks=attacks,
        sample=options.sample or (_FEW if options.quick else 0),
        quick=options.quick,
        cache=options.cache,
        out=out,
        plots=options.plots or out,
        contrib=options.contrib,
        same_scene=options.same_scene,
        peers=not options.alone,
    )


def _measure(run: Run, name: str, part: Any) -> list[str]:
    """The part's table, which is written beside its JSON."""
    begun = time.perf_counter()
    result = part.run(run)
    result |= {"seconds": round(time.perf_counter() - begun, 1), "part": run.part, "versions": _versions()}
    run.out.mkdir(parents=True, exist_ok=True)
    (run.out / f"{run.stem}-{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    if run.part == "dev" and hasattr(part, "plot"):
        part.plot(result, run.plots)
    lines: list[str] = part.markdown(result)
    print("\n".join([f"## {name}", "", *lines, ""]), flush=True)
    return lines


def _summarise(run: Run, tables: Mapping[str, list[str]]) -> None:
    """One page of what ran now, after the goals, which count what earlier runs left here too."""
    files = {name: run.out / f"{run.stem}-{name}.json" for name in PARTS}
    reached = goals.table({name: json.loads(path.read_text()) for name, path in files.items() if path.exists()})
    parts = [line for name, lines in tables.items() for line in ("", f"## {name}", "", *lines)]
    (run.out / f"{run.stem}.md").write_text("\n".join([*reached, *parts]) + "\n")
    few = ["A quick run, on few pictures: the figures are rough.", ""] if run.quick else []
    print("\n".join(["## goals", "", *few, *reached, "", f"All of it is in {run.out / run.stem}.md"]), flush=True)


def _versions() -> dict[str, str]:
    names = ("pillow", "numpy", "opencv-python-headless", "faiss-cpu", "pdqhash", "imagehash", "augly")
    found = {dist.name.lower(): dist.version for dist in distributions() if dist.name}
    return {"python": platform.python_version(), **{name: found[name] for name in names if name in found}}


if __name__ == "__main__":
    main()
