"""Results that outlive the run that made them, in files named after what decides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def kept(file: Path, make: Callable[[], Any]) -> Any:
    """What `make` returned when the file was not there yet, as JSON gives it back."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(make()))
        draft.replace(file)
    return json.loads(file.read_text())


def version(paths: Iterable[Path], before: str = "") -> str:
    """Of the code in these files, and of what it rests on."""
    return hashlib.sha256(b"".join([before.encode(), *(path.read_bytes() for path in paths)])).hexdigest()[:12]
