"""Gets every server that the tests need, or those that are named, before they run: `python -m tests.servers [PART ...]`.

What cannot be had is said, and skipped later.
"""

from __future__ import annotations

import importlib
import sys

from tests.servers import Missing, tell

PARTS = ("kafka", "s3", "postgres")


def main() -> None:
    for part in sys.argv[1:] or PARTS:
        try:
            importlib.import_module(f"tests.servers.{part}").get()
        except Missing as error:
            tell(f"{part}: {error}")


if __name__ == "__main__":
    main()
