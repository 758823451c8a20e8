"""`python -m filigrane.demo`."""

import argparse
import sys
from pathlib import Path

from filigrane.demo.run import run

parser = argparse.ArgumentParser(prog="python -m filigrane.demo", description="The whole job on a little web of its own.")
parser.add_argument("--once", action="store_true", help="end after the print-out; 0 only if all was found and nothing else")
parser.add_argument("--svg", type=Path, metavar="FILE", help="also write the print-out as a picture")
given = parser.parse_args()
sys.exit(run(once=given.once, svg=given.svg))
