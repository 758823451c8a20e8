"""A matcher for a command, where nobody else runs one."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from core.repo import crawled
from core.services import Services
from filigrane.commands import Caller, say
from filigrane.serve import running_on
from filigrane.supervisor import Child, Supervisor, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

_TICK: Final = 0.1


@contextmanager
def matcher(services: Services) -> Iterator[Supervisor | None]:
    """Runs beside what is done in here; None where others do: `serve`, or the roles of the distributed form."""
    settings = services.settings
    if settings.distributed or running_on(settings.data) is not None:
        yield None
        return
    folder = settings.data / "run"
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        log = stack.enter_context((folder / "command.log").open("wb"))
        yield stack.enter_context(Supervisor(environment(settings), folder, [Child("matcher")], log))


def look_back(caller: Caller) -> None:
    """Waits until what the account registered was looked for in what was crawled before. Where others run, they do it by themselves."""
    if not _is_behind(caller):
        return
    with matcher(caller.services) as ours:
        if ours is not None:
            say("looking for them in what was crawled before")
            while _is_behind(caller):
                ours.watch()
                time.sleep(_TICK)


def _is_behind(caller: Caller) -> bool:
    with caller.services.database.read() as tx:
        return caller.account.id in crawled.behind(tx) and bool(crawled.visible(tx, caller.account.id))
