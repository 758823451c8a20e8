"""News of what is registered: what an account changed is in the index before anybody asks for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Final

import structlog

from core.bus import Message
from core.events import MEDIA, MediaChanged, MessageInvalid, decode
from core.services import Services
from matcher.member import Stopped, patiently
from matcher.registry import Registry
from matcher.tasks import place

_POLL_SECONDS: Final = 0.5

log = structlog.get_logger()


def run(services: Services, registry: Registry, stop: threading.Event) -> None:
    """Hears the topic `media` until `stop` is set. What was said before, messages of pictures ask for by its version."""
    with suppress(Stopped), closing(patiently(lambda: services.bus.follow(MEDIA, "latest"), stop, MEDIA)) as follower:
        while True:
            messages = patiently(partial(follower.poll, _POLL_SECONDS), stop, MEDIA)
            patiently(partial(hear, registry, messages), stop, MEDIA)


def hear(registry: Registry, messages: Sequence[Message]) -> None:
    """Messages of the topic `media`. Raises Unavailable."""
    for message in messages:
        try:
            event = decode(message.value)
        except MessageInvalid as error:
            log.error("matcher.media_message_invalid", **place(message), reason=error.details)
            continue
        if isinstance(event, MediaChanged):
            registry.heard(event)
