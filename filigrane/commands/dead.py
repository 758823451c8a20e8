"""`filigrane dead`: messages that nobody could work on; the operator looks at them, and has them tried again."""

from __future__ import annotations

import argparse
from typing import Any, Final

from core.bus import deadletters
from core.bus.deadletters import Letter
from core.events import IMAGES, SEARCHES
from filigrane.commands import opened, result

TOPICS: Final = (IMAGES, SEARCHES)


def list_all(given: argparse.Namespace) -> int:
    with opened(given) as services:
        found = [letter for topic in given.topics or TOPICS for letter in deadletters.letters(services.bus, topic)]
    result([shown(letter) for letter in found if given.code in (None, letter.code)])
    return 0


def replay(given: argparse.Namespace) -> int:
    with opened(given) as services:
        result([shown(letter) for topic in given.topics or TOPICS for letter in deadletters.replay(services.bus, topic, given.code)])
    return 0


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
