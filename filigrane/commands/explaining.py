"""`filigrane search --explain`: a sheet that shows why a registered picture was found."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from core.errors import InvalidInput
from core.events import SearchHit
from core.repo import pictures
from filigrane.commands import Caller, say
from matcher.copies.explain import explain
from matcher.decode import decode
from matcher.pixels import U8
from matcher.registrar import PREVIEW_SIDE


def write(caller: Caller, data: bytes, hits: Sequence[SearchHit], file: Path) -> None:
    """Draws the first hit that says where it is, from its stored preview and the bytes that were searched with.

    Raises:
        InvalidInput: the file cannot be written.
        ObjectMissing, Unavailable: the preview cannot be had.
    """
    found = next((hit for hit in hits if hit.transform is not None), None)
    shown = _preview(caller, found.picture) if found is not None else None
    if found is None or found.transform is None or shown is None:
        say("nothing to explain: no registered picture was found")
        return
    preview, size = shown
    query, query_size = decode(data, PREVIEW_SIDE)
    sheet = explain(preview, query, np.reshape(found.transform, (3, 3)), caption(found), (size, query_size))
    _save(sheet, file)
    say(f"{file}: {caption(found)}")


def caption(hit: SearchHit) -> str:
    """What speaks for the hit, on one line."""
    said = [hit.verdict] if hit.verdict is not None else []
    if hit.p_value is not None:
        said.append(f"watermark p = {hit.p_value:.1e}")
    if hit.payload is not None:
        said.append(f"payload {hit.payload}")
    if hit.score is not None:
        said.append(f"score {hit.score:.1f}")
    if hit.why is not None:
        pairs = hit.why.correspondences
        said.append(f"{hit.why.inliers} of {pairs} correspondences agree" if pairs else "compared as a whole")
        said.append(f"{hit.why.likeness:.0%} of the blocks alike (NCC {hit.why.ncc:.2f})")
    if hit.overlap is not None:
        said.append(f"{hit.overlap:.0%} of the registered picture shown")
    if hit.mirrored:
        said.append("mirrored")
    return ", ".join(said)


def _preview(caller: Caller, picture_id: int) -> tuple[U8, tuple[int, int]] | None:
    """The registered picture as it is stored to be shown, and its own (width, height); None where it was deleted meanwhile."""
    with caller.services.database.read() as tx:
        mine = [p for p in pictures.by_ids(tx, [picture_id]) if p.account_id == caller.account.id and not p.deleted]
        if not mine:
            return None
        [static] = pictures.statics(tx, [mine[0].preview_id])
        key, size = static.key, (mine[0].width, mine[0].height)
    return decode(caller.services.store.get(key))[0], size


def _save(sheet: U8, file: Path) -> None:
    drawn = io.BytesIO()
    Image.fromarray(sheet).save(drawn, "PNG")
    try:
        file.write_bytes(drawn.getvalue())
    except OSError as error:
        raise InvalidInput(f"cannot write {file}: {error.strerror}", code="file_unwritable") from error
