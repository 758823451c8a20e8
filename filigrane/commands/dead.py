"""`filigrane dead`: messages that nobody could work on, or build; the operator looks at them, and has them tried again."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy.orm import Session

from core.bus import deadletters
from core.bus.deadletters import Letter
from core.events import FEATURES, IMAGES, SEARCHES
from core.models import Segment
from core.repo import healing
from core.services import Services
from crawler.publish import PieceUnreadable
from filigrane.commands import opened, result

TOPICS: Final = (IMAGES, FEATURES, SEARCHES)


def list_all(given: argparse.Namespace) -> int:
    with opened(given) as services:
        letters = (letter for topic in given.topics or TOPICS for letter in deadletters.letters(services.bus, topic))
        found = [shown(letter) for letter in letters if given.code in (None, letter.code)]
        result(found + _pieces(given, services, healing.given_up))
    return 0


def replay(given: argparse.Namespace) -> int:
    with opened(given) as services:
        replayed = [shown(letter) for topic in given.topics or TOPICS for letter in deadletters.replay(services.bus, topic, given.code)]
        result(replayed + _pieces(given, services, healing.rearm))
    return 0


def _pieces(given: argparse.Namespace, services: Services, work: Callable[[Session], list[Segment]]) -> list[dict[str, Any]]:
    """Journal pieces that were given up lie here, too, as messages of `images` that could not be built: what is done with them."""
    if IMAGES not in (given.topics or TOPICS) or given.code not in (None, PieceUnreadable.default_code):
        return []
    return [shown_piece(row) for row in services.database.transact(work)]


def shown(letter: Letter) -> dict[str, Any]:
    return {
        "topic": letter.topic,
        "code": letter.code,
        "reason": letter.reason,
        "source": letter.source,
        "request_id": letter.request_id,
        "key": letter.message.key,
        "bytes": len(letter.message.value),
        "message": letter.message.value.decode("utf-8", "replace")[:2000],
    }


def shown_piece(row: Segment) -> dict[str, Any]:
    return {
        "topic": IMAGES,
        "code": PieceUnreadable.default_code,
        "reason": row.trouble,
        "source": row.key,
        "request_id": None,
        "key": f"session {row.session_id}, cycle {row.cycle}, piece {row.seq}",
        "bytes": row.length,
        "message": None,
    }
