"""Publishes again what was stored and never acknowledged, because its worker died, the bus was away, or messages are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog
from sqlalchemy.orm import Session

from core.bus import Outgoing
from core.errors import FiligraneError, InvalidInput
from core.events import IMAGES, MEDIA
from core.models import Segment
from core.repo import crawls, healing
from core.repo.healing import MESSAGES_KEPT
from core.services import Services
from core.telemetry import counter
from crawler.publish import PieceUnreadable, announce, messages_of_pieces

PATIENCE: Final = timedelta(seconds=30)
"""How long the worker that stored a piece has for its messages."""
SETTLING: Final = timedelta(seconds=5)
"""From the first news that messages are gone until they are sent again: members notice it one after the other, and who published just
before has marked its piece sent by then."""
_CYCLES: Final = 1000
_AT_ONCE: Final = 50
_MESSAGES: Final = 1000
"""Pieces, and messages, that are published together."""
_Built = tuple[Segment, list[Outgoing]]

log = structlog.get_logger()
healed_total = counter(
    "filigrane_scheduler_healed_total",
    "Journal pieces whose messages were published again, could not be, or were given up; batches of which none can be built any more.",
    ["outcome"],
)


def resend(services: Services) -> Iterator[int]:
    """Yields how many pieces were sent. A cycle's are sent in order, in one pass over its journal; one that is in trouble holds up no
    other cycle, and its own until it is given up."""
    before = services.clock.now() - PATIENCE
    with services.database.read() as tx:
        cycles = crawls.unsent_cycles(tx, before, _CYCLES)
    for session_id, cycle in cycles:
        try:
            yield from _resend(services, session_id, cycle, before)
        except PieceUnreadable as error:
            _note(services, error.row, error.details)
        except FiligraneError as error:
            healed_total.labels(error.code).inc()
            log.warning("scheduler.heal_failed", session=session_id, cycle=cycle, error=error.details)
        except Exception:
            healed_total.labels("internal").inc()
            log.exception("scheduler.heal_failed", session=session_id, cycle=cycle)


def _resend(services: Services, session_id: int, cycle: int, before: datetime) -> Iterator[int]:
    """All of the cycle's, some at a time. Raises PieceUnreadable, after those before it were sent."""
    with services.database.read() as tx:
        rows = crawls.segments_of(tx, session_id, cycle, "journal")
    seqs = {row.seq for row in rows if row.sent is None and row.given_up is None and row.stored < before}
    if not seqs:  # another scheduler, or their worker, was quicker
        return
    waiting: list[_Built] = []
    trouble: PieceUnreadable | None = None
    try:
        for built in messages_of_pieces(services, session_id, cycle, seqs):
            waiting.append(built)
            if len(waiting) >= _AT_ONCE or sum(len(outgoing) for _, outgoing in waiting) >= _MESSAGES:
                yield _send(services, waiting)
                waiting = []
    except PieceUnreadable as error:
        trouble = error
    if waiting:
        yield _send(services, waiting)
    if trouble is not None:
        raise trouble


def _send(services: Services, built: Sequence[_Built]) -> int:
    """Publishes the messages of these pieces, then marks them sent. Raises PieceUnreadable for one whose messages the bus never takes."""
    first, _ = built[0]
    try:
        announce(services, first.session_id, first.cycle, [message for _, outgoing in built for message in outgoing])
    except InvalidInput as error:
        if len(built) == 1:
            raise PieceUnreadable(first, error) from error
        return sum(_send(services, [one]) for one in built)
    with services.database.write() as tx:
        for row, _ in built:
            crawls.mark_sent(tx, row.session_id, row.cycle, row.seq, services.clock.now())
    healed_total.labels("sent").inc(len(built))
    return len(built)


def _note(services: Services, row: Segment, reason: str) -> None:
    """A piece made trouble; after many tries it is given up, its row says why, and those after it go on without what is in it."""
    with services.database.write() as tx:
        noted = healing.failed(tx, row.id, reason, services.clock.now())
    healed_total.labels("given up" if noted.given_up else "unreadable").inc()
    event = "scheduler.piece_given_up" if noted.given_up else "scheduler.piece_unreadable"
    log.error(event, session=row.session_id, cycle=row.cycle, piece=row.seq, key=row.key, reason=reason, tries=noted.tries)


def topics(services: Services) -> Iterator[int]:
    """A topic that lost messages unread, or was deleted and made anew, gets them again: those of pictures that were found, or of
    registered ones."""
    for topic, again in _AGAIN.items():
        identity, now = services.bus.identity(topic), services.clock.now()
        sent = services.database.transact(partial(_again_if_missed, topic, identity, again, now))
        if sent is not None:
            log.error("scheduler.messages_sent_again", topic=topic, sent_again=sent)
            yield sent


def _again_if_missed(topic: str, identity: str, again: Callable[[Session, datetime], int], now: datetime, tx: Session) -> int | None:
    return again(tx, now) if healing.take_missed(tx, topic, identity, now - SETTLING, now) else None


def _images(tx: Session, now: datetime) -> int:
    healed = healing.send_images_again(tx, now, now - MESSAGES_KEPT)
    if healed.batches:
        healed_total.labels("batch lost").inc(healed.batches)
        log.error("scheduler.batches_lost", batches=healed.batches)
    return healed.pieces


_AGAIN: Final[dict[str, Callable[[Session, datetime], int]]] = {IMAGES: _images, MEDIA: healing.send_media_again}
