"""`filigrane search`: which registered pictures a file shows. A running `serve` answers, else a matcher of our own."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final
from uuid import uuid4

from api_shim import schemas
from api_shim.answers import Answers
from api_shim.present import Presenter
from api_shim.schemas import stamp
from core.errors import InvalidInput
from core.events import SearchAnswered, SearchAsked
from core.repo import media
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
        if running_on(caller.services.settings.data) is None:
            stack.enter_context(_matcher(caller.services, stack))
        answer = _ask(caller, data, given.transform, given.similar)
        if answer.error_code is not None:
            raise InvalidInput(answer.error_details or "the picture could not be searched with", code=answer.error_code)
        result(schemas.SearchDone("complete", _matches(caller, answer)))
    return 0


def _matcher(services: Services, stack: ExitStack) -> Supervisor:
    folder: Path = services.settings.data / "run"
    folder.mkdir(exist_ok=True)
    log = stack.enter_context((folder / "command.log").open("wb"))
    return Supervisor(environment(services.settings), folder, [Child("matcher")], log)


def _ask(caller: Caller, data: bytes, transform: str, similar: bool) -> SearchAnswered:
    services, search_id = caller.services, uuid4().hex
    key = f"queries/{search_id}"
    answers = Answers(services)
    services.store.put(key, data)
    try:
        return answers.ask(
            SearchAsked(
                search=search_id,
                account=caller.account.id,
                registry_version=caller.account.registry_version,
                key=key,
                transform=transform,
                similar=similar,
                deadline=services.clock.now() + PATIENCE,
                reply_to=answers.process,
                request_id=search_id,
            )
        )
    finally:
        services.store.delete([key])
        answers.close()


def _matches(caller: Caller, answer: SearchAnswered) -> list[schemas.UserMatch]:
    """Hits whose media were deleted meanwhile are left out."""
    created = stamp(caller.services.clock.now())
    detected = {hit.picture for hit in answer.hits if hit.key_id}
    with caller.services.database.read() as tx:
        presenter = Presenter(tx, caller.links)
        found = [(hit, media.linked(tx, hit.picture, hit.key_id, key_detected=hit.picture in detected)) for hit in answer.hits]
        return [presenter.hit(hit, nodes, created) for hit, nodes in found if nodes]
