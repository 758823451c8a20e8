"""`filigrane search`: which registered and which crawled pictures a file shows. The matchers that run answer, else one of our own."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final

from api_shim import schemas
from api_shim.answers import Answers
from api_shim.present import Presenter
from core.errors import InvalidInput
from core.events import SearchAnswered
from core.services import Services
from filigrane.commands import Caller, calling, result
from filigrane.serve import running_on
from filigrane.supervisor import Child, Supervisor, environment

PATIENCE: Final = timedelta(seconds=60)


def search(given: argparse.Namespace) -> int:
    try:
        data = given.file.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {given.file}: {error.strerror}", code="file_unreadable") from error
    with calling(given) as caller, ExitStack() as stack:
        settings = caller.services.settings
        if not settings.distributed and running_on(settings.data) is None:
            stack.enter_context(_matcher(caller.services, stack))
        answer = _ask(caller, data, given)
        with caller.services.database.read() as tx:
            matches = Presenter(tx, caller.links).found(caller.account.id, answer, caller.services.clock.now())
        result(schemas.SearchDone("complete", matches))
    return 0


def _matcher(services: Services, stack: ExitStack) -> Supervisor:
    folder: Path = services.settings.data / "run"
    folder.mkdir(exist_ok=True)
    log = stack.enter_context((folder / "command.log").open("wb"))
    return Supervisor(environment(services.settings), folder, [Child("matcher")], log)


def _ask(caller: Caller, data: bytes, given: argparse.Namespace) -> SearchAnswered:
    answers = Answers(caller.services)
    try:
        return answers.search(
            caller.account, data, transform=given.transform, similar=given.similar, category=given.category, patience=PATIENCE
        )
    finally:
        answers.close()
