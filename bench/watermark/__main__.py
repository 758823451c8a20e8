"""How well marks survive, how little they are seen, and what they cost.

    python -m bench.watermark --dev --photos DIR [--attacks jpeg_10,crop_10] [--sample 20] [--payload N]

Without a folder the pictures are those that come with scikit-image, and generated ones. Of a folder every third photo, in order of the
names, is held out: it is no part of what --dev looks at.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the libraries below load

from bench.copies.run import spread_out
from bench.copies.sets import sets
from bench.watermark import dev


def main() -> None:
    options = _parser().parse_args()
    attacks = options.attacks or tuple(dev.SUITE)
    if unknown := set(attacks) - set(dev.SUITE):
        raise SystemExit(f"no attack is called {', '.join(sorted(unknown))}; there are {', '.join(dev.SUITE)}")
    pictures = spread_out(sets(options.photos, None).registered, options.sample)
    print("\n".join(dev.table(*dev.look(pictures, attacks, options.payload))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dev", action="store_true", required=True, help="what each attack leaves, on the screen alone")
    parser.add_argument("--photos", type=Path, help="pictures to mark and attack")
    parser.add_argument("--attacks", type=lambda said: tuple(said.split(",")), help="some attacks, by name")
    parser.add_argument("--sample", type=int, default=0, help="mark so many of the pictures, evenly spread")
    parser.add_argument("--payload", type=int, help="a number that the marks carry")
    return parser


if __name__ == "__main__":
    main()
