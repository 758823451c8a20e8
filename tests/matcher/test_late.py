"""A group that is days behind: segments are gone, their bytes come from the batch's artifact; what is in neither is a dead letter."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from core.bus import deadletters
from core.events import IMAGES, ImageFound, StoredAt
from core.models import Segment
from core.repo import crawls
from core.repo.crawls import ArtifactDraft
from core.services import Services
from core.settings import Settings
from matcher.decode import Decoders
from matcher.images import Images
from matcher.pipeline import Pipeline
from matcher.registry import Registry
from tests.core.crawled import begin, hold, segment
from tests.matcher.pictures import encoded, photo
from tests.matcher.world import NOW, World, polled

BETWEEN = b"\0" * (300 << 10)
"""More than is read for nothing: pictures on both sides of it are stretches of their own."""


@pytest.fixture(params=["folder", "s3"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    options: dict[str, Any] = request.getfixturevalue("s3_settings") if request.param == "s3" else {}
    with Services.open(Settings(data=tmp_path, **options)) as services:
        yield World(services)


@pytest.fixture
def images(world: World, decoders: Decoders) -> Iterator[Images]:
    made = Images(world.services, Pipeline(Registry(world.services)), decoders, threading.Event())
    yield made
    made.close()


def joined(world: World, segments: Sequence[Sequence[bytes]]) -> list[ImageFound]:
    """Events of a cycle's pictures, whose segments were joined into a batch and deleted."""
    held = hold(world.services, "site.example", now=NOW)
    session = begin(world.services, held, world.session, NOW)
    rows, events, offsets, archive = list[Segment](), list[ImageFound](), dict[tuple[str, int], int](), b""
    for seq, pictures in enumerate(segments):
        row, body = segment(held, session, "tar", seq, NOW), b""
        for data in pictures:
            body += BETWEEN
            page = f"http://site.example/{seq}/{len(body)}"
            events.append(world.found(data, StoredAt(seq, row.key, len(body), len(data)), (page,), session=session.id, cycle=1))
            body += data
        world.services.store.put(row.key, body)
        offsets["tar", seq] = len(archive)
        archive += body
        rows.append(row)
    key = f"batches/{session.id}/1/1/images.tar"
    world.services.store.put(key, archive)
    draft = ArtifactDraft("images.tar", len(events), key, len(archive), "0" * 64, "application/x-tar", "images.tar")
    with world.services.database.write() as tx:
        crawls.store_segments(tx, held, rows)
        crawls.finish_cycle(tx, held, session.id, artifacts=[draft], offsets=offsets, snapshot_key="f", state="done", reason=None, now=NOW)
        crawls.mark_deleted(tx, [row.id for row in crawls.expired_segments(tx, NOW + timedelta(days=2), 100)])
    world.services.store.delete([row.key for row in rows])
    return events


def test_bytes_come_from_the_artifact(world: World, images: Images) -> None:
    for number in range(2):
        world.register(f"{number}.jpg", encoded(photo(number), "JPEG"))
    world.publish(*joined(world, [[encoded(photo(n % 2), "JPEG", quality=q) for n in range(3)] for q in (50, 60, 70)]))
    images.work(polled(world.services, IMAGES))
    assert len(world.matches()) == 9
    assert list(deadletters.letters(world.services.bus, IMAGES)) == []


def test_what_is_in_neither_is_a_dead_letter(world: World, images: Images) -> None:
    world.register("0.jpg", encoded(photo(0), "JPEG"))
    events = joined(world, [[encoded(photo(0), "JPEG", quality=50)], [encoded(photo(0), "JPEG", quality=60)]])
    with world.services.database.write() as tx:
        crawls.segments_of(tx, world.session, 1, "tar")[1].artifact_offset = None  # it was not whole when the batch was made
    world.publish(*events)
    images.work(polled(world.services, IMAGES))
    assert len(world.matches()) == 1
    (letter,) = deadletters.letters(world.services.bus, IMAGES)
    assert (letter.code, letter.message.value) == ("object_missing", polled(world.services, IMAGES, key=events[1].sha256)[0].value)
    assert "TAR segment 1" in letter.reason
    world.services.store.delete([f"batches/{world.session}/1/1/images.tar"])
    world.publish(world.found(b"new", events[0].bytes, session=world.session, cycle=1))
    images.work(polled(world.services, IMAGES)[-1:])
    assert len(list(deadletters.letters(world.services.bus, IMAGES))) == 2
