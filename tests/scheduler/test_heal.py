"""Heal: what a worker stored and did not live to send is sent as it would have been; nothing is lost, nothing holds up the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from kafka import KafkaAdminClient

from core import outbox
from core.bus import Message, Outgoing
from core.bus.embedded import EmbeddedBus
from core.bus.kafka import KafkaBus
from core.clock import ManualClock
from core.errors import Unavailable
from core.events import IMAGES, MEDIA, SIGHTINGS_PER_MESSAGE, ImageFound, decode
from core.models import CrawlSession, Segment
from core.repo import crawls, healing, media
from core.services import Services
from core.settings import Settings
from core.urls import MAX_LENGTH
from crawler import publish
from crawler.extract import MAX_ALT
from crawler.journal import Image, Page, Piece, Pointer, Record, decode_piece, encode_piece
from crawler.publish import messages_of_pieces
from scheduler import heal, sweep
from tests.core.crawled import add_account, add_session, begin, finish, hold, store
from tests.matcher.pictures import encoded, photo
from tests.matcher.world import NOW, World

PICTURE = "http://a.example/1.jpg"


@pytest.fixture
def services(tmp_path: Path) -> Any:
    with Services.open(Settings(data=tmp_path), clock=ManualClock(datetime.now(UTC))) as opened:
        yield opened


def image(sha256: str = "e" * 64) -> Image:
    return Image(
        PICTURE, "http://a.example/", "fetched", 1.0, 0.0,
        status=200, content_type="image/jpeg", width=4, height=3, bytes=5, md5="d" * 32, sha256=sha256, tar=Pointer(0, 0, 5),
    )  # fmt: skip


def page(number: int, *, warc: Pointer | None = None) -> Page:
    url = f"http://a.example/{number}"
    return Page(url, "", 1, "fetched", 1.0, 0.0, 200, "text/html", images=((PICTURE, f"alt {number}"),), warc=warc)


def stored_cycle(services: Services, pieces: Sequence[Sequence[Record]], **options: Any) -> CrawlSession:
    """A running cycle with a TAR segment and these pieces, whose worker died before it sent one."""
    now = services.clock.now()
    account = add_account(services, f"owner{now.timestamp()}")
    held = hold(services, now=now)
    running = begin(services, held, add_session(services, account, now=now, **options).id, now)
    rows = store(services, held, running, [("tar", 0), *(("journal", seq) for seq in range(len(pieces)))], now)
    first = 0
    for row, records in zip(rows[1:], pieces, strict=True):
        services.store.put(row.key, encode_piece(Piece(first, tuple(records))))
        first += len(records)
    return running


def later(services: Services, seconds: float) -> None:
    assert isinstance(services.clock, ManualClock)
    services.clock.advance(seconds)


def unsent(services: Services) -> list[Segment]:
    with services.database.read() as tx:
        return crawls.unsent(tx, services.clock.now(), 100)


def sent(services: Services) -> list[Message]:
    follower = services.bus.follow(IMAGES, "earliest")
    try:
        return follower.poll(0, 1000)
    finally:
        follower.close()


def found(message: Message | Outgoing) -> ImageFound:
    """The event without what is drawn anew for each message."""
    event = decode(message.value)
    assert isinstance(event, ImageFound)
    return msgspec.structs.replace(event, request_id="")


def test_what_is_sent_is_what_the_crawler_builds_for_the_piece(services: Services) -> None:
    stored_cycle(services, [[image()], [page(1), page(2, warc=Pointer(0, 0, 9))]])
    later(services, 31)
    expected = [found(message) for _, some in messages_of_pieces(services, 1, 1, {0, 1}) for message in some]
    assert sum(heal.resend(services)) == 2
    assert [found(message) for message in sorted(sent(services), key=lambda message: message.offset)] == expected
    seen = {sighting.page_url for event in expected for sighting in event.sightings}
    assert seen == {"http://a.example/", "http://a.example/1", "http://a.example/2"}
    assert {event.bytes.key for event in expected} == {"crawl/1/1/1/000000.tar"}  # the second piece names the bytes of the first
    assert unsent(services) == []


def test_many_sightings_are_split(services: Services) -> None:
    stored_cycle(services, [[image(), *(page(number) for number in range(SIGHTINGS_PER_MESSAGE + 10))]])
    later(services, 31)
    assert sum(heal.resend(services)) == 1
    counts = [len(found(message).sightings) for message in sent(services)]
    assert sum(counts) == SIGHTINGS_PER_MESSAGE + 11
    assert max(counts) == SIGHTINGS_PER_MESSAGE


def test_a_session_that_asks_for_no_search_is_only_marked(services: Services) -> None:
    stored_cycle(services, [[image()]], search=False)
    later(services, 31)
    assert sum(heal.resend(services)) == 1
    assert sent(services) == []
    assert unsent(services) == []


def test_while_the_bus_is_away_pieces_stay_unsent(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_cycle(services, [[image()], [page(1)]])
    later(services, 31)

    def away(messages: Any) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(services.bus, "publish", away)
        assert sum(heal.resend(services)) == 0
    assert len(unsent(services)) == 2
    assert sum(heal.resend(services)) == 2


def test_a_death_between_publish_and_mark_sends_twice_and_loses_nothing(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_cycle(services, [[image()]])
    later(services, 31)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(crawls, "mark_sent", die)
        with pytest.raises(KeyboardInterrupt):
            list(heal.resend(services))
    assert sum(heal.resend(services)) == 1
    first, second = sent(services)
    assert found(first) == found(second)


def spoil(services: Services, session: CrawlSession, seq: int, data: bytes) -> None:
    with services.database.read() as tx:
        services.store.put(crawls.segments_of(tx, session.id, session.cycle_count, "journal")[seq].key, data)


def test_a_piece_that_is_unreadable_is_given_up_in_the_end_and_holds_up_no_other_cycle(services: Services) -> None:
    broken = stored_cycle(services, [[image()], [page(1)], [page(2)]])
    spoil(services, broken, 1, b"no piece")
    later(services, 1)
    stored_cycle(services, [[image("f" * 64)]])
    later(services, 31)
    assert sum(heal.resend(services)) == 2, "the first piece of the broken cycle, and the other cycle"
    for _ in range(healing.TRIES - 2):
        assert sum(heal.resend(services)) == 0
    assert [row.seq for row in unsent(services)] == [1, 2]
    list(heal.resend(services))
    assert [row.seq for row in unsent(services)] == [2]
    assert sum(heal.resend(services)) == 1, "what comes after it goes on without it"
    with services.database.read() as tx:
        row = crawls.segments_of(tx, broken.id, 1, "journal")[1]
    assert (row.sent, row.tries, row.given_up) == (None, healing.TRIES, services.clock.now())
    assert "Corrupt" in (row.trouble or "")
    pages = [[sighting.page_url for sighting in found(message).sightings] for message in sent(services) if message.key == "e" * 64]
    assert sorted(pages) == [["http://a.example/"], ["http://a.example/2"]]


def test_however_much_waits_in_a_cycle_in_trouble_the_next_one_has_its_turn(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = stored_cycle(services, [[image()], [page(1)], [page(2)]])
    spoil(services, broken, 0, b"no piece")
    later(services, 1)
    stored_cycle(services, [[image("f" * 64)]])
    later(services, 31)
    monkeypatch.setattr(heal, "_CYCLES", 2)
    assert sum(heal.resend(services)) == 1


def test_a_piece_that_was_given_up_can_be_tried_again(services: Services) -> None:
    """What comes after it is sent again, too: it could name pictures that only the broken piece tells of."""
    session = stored_cycle(services, [[page(1)], [image()], [page(2)], [page(3)]])
    with services.database.read() as tx:
        key = crawls.segments_of(tx, session.id, 1, "journal")[1].key
    whole = services.store.get(key)
    services.store.put(key, b"no piece")
    later(services, 31)
    for _ in range(healing.TRIES + 1):
        list(heal.resend(services))
    assert (sent(services), unsent(services)) == ([], [])
    services.store.put(key, whole)
    with services.database.write() as tx:
        assert [(row.seq, row.tries, row.given_up) for row in healing.rearm(tx)] == [(1, 0, None)]
    assert sum(heal.resend(services)) == 3
    with services.database.read() as tx:
        assert healing.given_up(tx) == []
    pages = {sighting.page_url for message in sent(services) for sighting in found(message).sightings}
    assert pages == {"http://a.example/", *(f"http://a.example/{number}" for number in (1, 2, 3))}


def test_however_many_notice_a_loss_it_is_sent_again_once(services: Services) -> None:
    stored_cycle(services, [[image()], [page(1)]])
    later(services, 31)
    assert sum(heal.resend(services)) == 2
    for _ in range(5):
        with services.database.write() as tx:
            healing.note_missed(tx, IMAGES, services.clock.now())
        later(services, 1)
    assert [list(heal.topics(services)), list(heal.topics(services))] == [[2], []]


def test_a_piece_that_is_readable_again_is_sent(services: Services) -> None:
    session = stored_cycle(services, [[image()], [page(1)]])
    with services.database.read() as tx:
        row = crawls.segments_of(tx, session.id, 1, "journal")[0]
    whole = services.store.get(row.key)
    services.store.delete([row.key])
    later(services, 31)
    assert sum(heal.resend(services)) == 0
    services.store.put(row.key, whole)
    assert sum(heal.resend(services)) == 2


def test_a_cycle_is_read_once_for_all_its_pieces(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    stored_cycle(services, [[image()], *([page(number)] for number in range(1, 40))])
    later(services, 31)
    reads: list[bytes] = []

    def counted(data: bytes) -> Piece:
        reads.append(data)
        return decode_piece(data)

    monkeypatch.setattr(publish, "decode_piece", counted)
    assert sum(heal.resend(services)) == 40
    assert len(reads) == 40


def test_messages_stay_small_whatever_is_in_them(services: Services) -> None:
    address = "http://a.example/" + "x" * (MAX_LENGTH - 17)
    pages = [
        Page(f"{address[:-4]}{number:04}", "", 1, "fetched", 1.0, 0.0, images=((PICTURE, chr(7) * MAX_ALT),))
        for number in range(SIGHTINGS_PER_MESSAGE)
    ]
    stored_cycle(services, [[image(), *pages]])
    later(services, 31)
    assert sum(heal.resend(services)) == 1
    assert sum(len(found(message).sightings) for message in sent(services)) == SIGHTINGS_PER_MESSAGE + 1


def test_what_the_bus_lost_is_sent_again(services: Services) -> None:
    stored_cycle(services, [[image()], [page(1)]])
    later(services, 31)
    list(heal.resend(services))
    with services.database.write() as tx:
        assert healing.send_images_again(tx, services.clock.now(), services.clock.now()) == (2, 0)
    assert sum(heal.resend(services)) == 2
    first, second = [found(message) for message in sent(services)][:2], [found(message) for message in sent(services)][2:]
    assert sorted(first, key=repr) == sorted(second, key=repr)


def test_batches_whose_pieces_are_gone_are_counted(services: Services) -> None:
    session = stored_cycle(services, [[image()]])
    finish(services, hold(services, now=services.clock.now()), session, services.clock.now(), offsets={("tar", 0): 0})
    later(services, 31)
    list(heal.resend(services))
    later(services, 9 * 86400)
    list(sweep.segments(services))
    with services.database.write() as tx:
        now = services.clock.now()
        assert healing.send_images_again(tx, now, now - timedelta(days=8)) == (0, 0)
        assert healing.send_images_again(tx, now, now - timedelta(days=10)) == (0, 1)


def test_every_registered_picture_is_told_again(services: Services) -> None:
    world = World(services)
    for number in range(3):
        world.register(f"{number}.jpg", encoded(photo(number), "JPEG"))
    with services.database.write() as tx:
        media.delete(tx, world.account.id, "anna/1.jpg", NOW)
    while outbox.drain(services):
        pass
    with services.database.write() as tx:
        assert healing.send_media_again(tx, services.clock.now()) == 2
    assert outbox.drain(services) == 2


def test_a_piece_outlives_its_batch_until_it_is_sent(services: Services) -> None:
    session = stored_cycle(services, [[image()]])
    finish(services, hold(services, now=services.clock.now()), session, services.clock.now(), offsets={("tar", 0): 0})
    later(services, 2 * 86400)
    with services.database.read() as tx:
        expired = crawls.expired_segments(tx, services.clock.now(), 10)
    assert [row.kind for row in expired] == ["tar"]
    assert sum(heal.resend(services)) == 1
    assert len(sent(services)) == 1


def test_a_topic_that_was_made_anew_gets_its_messages_again(services: Services) -> None:
    stored_cycle(services, [[image()], [page(1)]])
    world = World(services)
    world.register("a.jpg", encoded(photo(1), "JPEG"))
    later(services, 31)
    assert sum(heal.topics(services)) == 0, "the first look"
    assert sum(heal.resend(services)) == 2
    assert sum(heal.topics(services)) == 0
    bus = EmbeddedBus(services.settings.data / "another.sqlite")
    anew = replace(services, bus=bus)
    assert sum(heal.topics(anew)) == 0, "noticed"
    later(services, 6)
    assert list(heal.topics(anew)) == [2, 1]
    assert sum(heal.resend(anew)) == 2
    while outbox.drain(anew):
        pass
    assert (len(sent(anew)), bus.lag(IMAGES, "g"), bus.lag(MEDIA, "g")) == (2, 2, 1)
    assert sum(heal.topics(anew)) == 0
    bus.close()


def test_a_topic_that_was_deleted_on_kafka_gets_its_messages_again(services: Services, kafka_server: str) -> None:
    stored_cycle(services, [[image()], [page(1)]])
    later(services, 31)
    prefix = f"{uuid4().hex}."
    bus = KafkaBus(kafka_server, prefix=prefix, partitions=2)
    on_kafka = replace(services, bus=bus)
    assert sum(heal.topics(on_kafka)) == 0, "the first look"
    assert sum(heal.resend(on_kafka)) == 2
    assert bus.lag(IMAGES, "g") == 2
    admin = KafkaAdminClient(bootstrap_servers=kafka_server)
    admin.delete_topics([f"{prefix}{IMAGES}"])
    admin.close()
    until = time.monotonic() + 60
    while not sum(again_while_away(lambda: heal.topics(on_kafka))):
        assert time.monotonic() < until
        later(services, 3)
    assert sum(heal.resend(on_kafka)) == 2
    assert bus.lag(IMAGES, "g") == 2
    bus.close()


def again_while_away(job: Callable[[], Iterator[int]]) -> list[int]:
    """What the job does; nothing while the topic is being deleted."""
    with suppress(Unavailable):
        return list(job())
    return []
