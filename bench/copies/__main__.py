"""How well copies are found, and what it costs, beside the peers, in one run; JSON and a Markdown table in bench-out/.

    python -m bench.copies [--photos DIR] [--distractors DIR] [--same-scene DIR] [--only PART] [--quick]
    python -m bench.copies --dev --photos DIR --distractors DIR --attacks crop_10,rotate_45 --sample 20

Without folders the pictures are those that come with scikit-image, and generated ones. Of folders a part is held out: every third photo and
every sixth distractor, in order of their names, which only --held-out asks for, once, at the end. --dev prints filigrane's recall, fast.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Final

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the libraries below load

from bench.copies import augly_suite, calibration, costs, crawled, flat, goals, hostile, index, recall, scenes
from bench.copies.attacks import ATTACKS
from bench.copies.run import Run, spread_out
from bench.copies.sets import Part, Sets, sets
from bench.copies.work import tell
from bench.parts import attacks_of, measure, parser, summarise

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
_PACKAGES: Final = ("pillow", "numpy", "opencv-python-headless", "faiss-cpu", "pdqhash", "imagehash", "augly")
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
        tables[name] = measure(run, name, PARTS[name], _PACKAGES)
    summarise(run, tables, goals.GOALS, tuple(PARTS))


def _parser() -> argparse.ArgumentParser:
    options = parser(__doc__ or "", PARTS, "filigrane-bench-copies")
    options.add_argument("--distractors", type=Path, help="pictures that show none of them")
    options.add_argument("--same-scene", type=Path, help="different photos of one scene; or folders with those of one scene each")
    return options


def _run(options: argparse.Namespace) -> Run:
    attacks = attacks_of(options.attacks, _QUICK if options.quick else tuple(ATTACKS), ATTACKS)
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


if __name__ == "__main__":
    main()
