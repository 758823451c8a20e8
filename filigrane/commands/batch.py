"""`filigrane batch`."""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path
from typing import Any, Final

from api_shim import present
from core.errors import Corrupt, InvalidInput
from core.models import Artifact, Batch
from core.objectstore import ObjectStore
from core.repo import crawls
from filigrane.commands import calling, result, say

_PIECE: Final = 1 << 20


def list_all(given: argparse.Namespace) -> int:
    with calling(given) as caller, caller.services.database.read() as tx:
        if given.session is not None:
            crawls.get_session(tx, caller.account.id, given.session)
        rows = tx.scalars(crawls.batches_of(caller.account.id, given.session).order_by(Batch.id.desc())).all()
        result(present.batches(tx, rows, caller.links))
    return 0


def download(given: argparse.Namespace) -> int:
    with calling(given) as caller:
        with caller.services.database.read() as tx:
            batch = crawls.get_batch(tx, caller.account.id, given.id)
        try:
            given.out.mkdir(parents=True, exist_ok=True)
            result([fetch(caller.services.store, artifact, given.out) for artifact in batch.artifacts])
        except OSError as error:
            raise InvalidInput(f"cannot write to {given.out}: {error.strerror}", code="not_writable") from error
    return 0


def fetch(store: ObjectStore, artifact: Artifact, folder: Path) -> dict[str, Any]:
    """Copies an artifact into the folder, under its name only once it is whole and verified. What is there and whole stays; what was cut
    goes on where it ended.

    Raises:
        Corrupt: what arrived is not what was stored; nothing of it is kept.
        ObjectMissing: it is gone.
    """
    path = folder / artifact.key.rsplit("/", 1)[1]
    facts = {"name": artifact.name, "file": str(path), "bytes": artifact.length, "sha256": artifact.sha256, "count": artifact.count}
    if path.exists() and _digest(path).hexdigest() == artifact.sha256:
        say(f"{path}: whole already")
        return facts
    part = path.with_name(path.name + ".part")
    digest = _digest(part)
    offset = part.stat().st_size if part.exists() else 0
    if offset > artifact.length:
        part.unlink()
        digest, offset = hashlib.sha256(), 0
    try:
        with part.open("ab") as file:
            for piece in store.stream(artifact.key, offset):
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != artifact.sha256:
            raise Corrupt(f"{artifact.name}: what arrived is not what was stored; try again")
    except Corrupt:
        part.unlink()
        raise
    part.replace(path)
    say(f"{path}: {artifact.length} bytes")
    return facts


def _digest(path: Path) -> Any:
    digest = hashlib.sha256()
    if path.exists():
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
    return digest
