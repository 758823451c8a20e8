"""Messages that follow a database write: a row in the same transaction, the message built from the database when it is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import structlog
from sqlalchemy.orm import Session

from core.bus import Bus, Outgoing
from core.errors import NotFound, Unavailable
from core.events import MEDIA, SESSIONS, SessionWoken, encode
from core.models import CrawlSession, Outbox
from core.repo import media, messages
from core.services import Services

log = structlog.get_logger()


def drain(services: Services, limit: int = 500) -> int:
    """Sends what is due and deletes its rows; returns how many. A crash in between sends them twice, which changes nothing.

    A bus or a database that is away is logged and no error: whoever calls has committed already, and the scheduler drains again.
    """
    try:
        return _drain(services, limit)
    except Unavailable as error:
        log.warning("outbox.waits", code=error.code, details=error.details)
        return 0


def _drain(services: Services, limit: int) -> int:
    if services.database.shared:
        return _drain_claimed(services, limit)
    with services.database.read() as tx:
        rows = messages.due(tx, limit)
    if rows:
        _send(services.bus, rows, services.database.read)
        with services.database.write() as tx:
            messages.sent(tx, rows)
    return len(rows)


def _drain_claimed(services: Services, limit: int) -> int:
    """A row stays until who claimed it has made sure that nothing older than what the bus has came after it, or has died."""
    with services.database.write() as tx:
        rows = messages.claimed(tx, limit)
        _send(services.bus, rows, lambda: _anew(tx))
        messages.sent(tx, rows)
    return len(rows)


@contextmanager
def _anew(tx: Session) -> Iterator[Session]:
    """The transaction, which sees what others have committed since it looked last."""
    tx.expunge_all()
    yield tx


def _send(bus: Bus, rows: Sequence[Outbox], view: Callable[[], AbstractContextManager[Session]]) -> None:
    """Until the state has not changed meanwhile: another process may have sent a newer one before ours, and the bus keeps the last."""
    subjects = dict.fromkeys((row.topic, row.subject_id) for row in rows)
    sent: list[Outgoing] = []
    while True:
        with view() as tx:
            outgoing = _build(tx, subjects)
        if outgoing == sent:
            return
        bus.publish(outgoing)
        sent = outgoing


def _build(tx: Session, subjects: Iterable[tuple[str, int]]) -> list[Outgoing]:
    return [message for topic, subject_id in subjects if (message := _BUILDERS[topic](tx, subject_id)) is not None]


def _session(tx: Session, session_id: int) -> Outgoing | None:
    session = tx.get(CrawlSession, session_id)
    return Outgoing(SESSIONS, session.domain, encode(SessionWoken(session.id, session.domain))) if session else None


def _media(tx: Session, picture_id: int) -> Outgoing | None:
    try:
        return Outgoing(MEDIA, str(picture_id), encode(media.changed(tx, picture_id)))
    except NotFound:
        return None


_BUILDERS: Final[dict[str, Callable[[Session, int], Outgoing | None]]] = {SESSIONS: _session, MEDIA: _media}
"""What is sent about a subject as it is now; None when it is gone."""
