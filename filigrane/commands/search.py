"""`filigrane search`: which registered and which crawled pictures a file shows. The matchers that run answer, else one of our own."""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Final

from api_shim import schemas
from api_shim.answers import Answers
from api_shim.present import Presenter
from core.errors import InvalidInput
from core.events import SearchAnswered
from filigrane.commands import Caller, calling, explaining, result
from filigrane.commands.matching import matcher

PATIENCE: Final = timedelta(seconds=60)


def search(given: argparse.Namespace) -> int:
    try:
        data = given.file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {given.file}: {error.strerror}", code="file_unreadable") from error
    with calling(given) as caller, matcher(caller.services):
        answer = _ask(caller, data, given)
        with caller.services.database.read() as tx:
            matches = Presenter(tx, caller.links).found(caller.account.id, answer, caller.services.clock.now())
        result(schemas.search_done(matches, answer.candidates))
        if given.explain is not None:
            explaining.write(caller, data, answer.hits, given.explain)
    return 0


def _ask(caller: Caller, data: bytes, given: argparse.Namespace) -> SearchAnswered:
    answers = Answers(caller.services)
    try:
        return answers.search(
            caller.account, data, transform=given.transform, similar=given.similar, category=given.category, patience=PATIENCE
        )
    finally:
        answers.close()
