"""A batch to be listed and downloaded, in whatever the environment's settings name."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Final

from core import leases
from core.models import Batch
from core.repo import accounts, crawls
from core.repo.crawls import ArtifactDraft
from core.services import Services
from core.settings import load

NOW: Final = datetime(2026, 5, 1, tzinfo=UTC)


def made_batch(body: bytes) -> Batch:
    """The account `local` has a session with one batch, whose images.tar is `body`."""
    with Services.open(load()) as services:
        info = services.store.put("batches/1/1/1/images.tar", body)
        draft = ArtifactDraft("images.tar", 3, info.key, info.length, hashlib.sha256(body).hexdigest(), "application/x-tar", "x.tar")
        with services.database.write() as tx:
            local, _ = accounts.ensure_local(tx, services.settings.secret, NOW)
            row = crawls.create_session(tx, local.id, start_urls=["http://example.org/"], domain="example.org", now=NOW)
            held = leases.acquire(tx, "example.org", "test", 60, NOW)
            assert held is not None
            crawls.begin_cycle(tx, held, row.id, NOW)
            return crawls.finish_cycle(
                tx, held, row.id, artifacts=[draft], offsets={}, snapshot_key="x", state="done", reason=None, now=NOW
            )
