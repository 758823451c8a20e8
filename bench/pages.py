"""Tables of a run put into pages of the documentation, between comments that name them: the text around them is written by hand.

<!-- table: watermark robustness -->
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SECTION: Final = re.compile(r"(<!-- table: (?P<name>.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, tables: Mapping[str, list[str]]) -> str:
    """The page with the tables that there are in their places; others stay as they were."""

    def section(found: re.Match[str]) -> str:
        lines = tables.get(found["name"])
        return found[0] if lines is None else found[1] + "\n".join(["", *lines, ""]) + "\n" + found[3]

    return _SECTION.sub(section, page)


def fill(path: Path, tables: Mapping[str, list[str]]) -> None:
    path.write_text(filled(path.read_text(), tables))
