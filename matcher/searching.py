"""Synchronous searches: somebody waits, so they have a thread of their own and a deadline."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Final
from zlib import crc32

import msgspec
import structlog
from structlog.contextvars import bound_contextvars

from core import telemetry
from core.bus import Message, Outgoing, dead_letter
from core.errors import FiligraneError
from core.events import PRIVATE, RESULTS, SEARCHES, WEB, MessageInvalid, SearchAnswered, SearchAsked, decode, encode
from core.services import Services
from matcher.crawled.library import CrawledLibrary
from matcher.crawled.searching import WebSearch
from matcher.decode import Decoders
from matcher.member import TRIES, Member, Stopped, patiently
from matcher.pipeline import Pipeline, Source
from matcher.tasks import place

_DIED: Final = "decoder_died"
_INTERNAL: Final = "internal"

log = structlog.get_logger()
_SEARCHES: Final = telemetry.counter("filigrane_matcher_searches", "Searches, by what became of them", ["outcome"])


def run(services: Services, pipeline: Pipeline, library: CrawledLibrary, decoders: Decoders, stop: threading.Event) -> None:
    """Works as a member of the shard's group on the topic `searches` until `stop` is set."""
    searches = Searches(services, pipeline, library, decoders, stop)
    Member(services, SEARCHES, stop, searches.work, at_once=1, group=pipeline.shard.group).run()


class Searches:
    """Answers one search after the other."""

    def __init__(self, services: Services, pipeline: Pipeline, library: CrawledLibrary, decoders: Decoders, stop: threading.Event) -> None:
        self._services = services
        self._pipeline = pipeline
        self._web = WebSearch(services, library, decoders)
        self._decoders = decoders
        self._stop = stop

    def work(self, messages: Sequence[Message]) -> None:
        """Raises Stopped."""
        for message in messages:
            self.answer(message)

    def answer(self, message: Message) -> None:
        """Answers; drops what came too late, since nobody waits for it any more. What cannot be read, or fails for a fault of ours,
        lies with the dead letters. Raises Stopped."""
        try:
            event = decode(message.value)
            if not isinstance(event, SearchAsked):
                raise MessageInvalid(f"a message of type {type(event).__name__} is not for this topic")
        except MessageInvalid as error:
            _SEARCHES.labels("dead").inc()
            self._bury(message, error.code, error.details)
            return
        with bound_contextvars(**(place(message) | {"search": event.search, "request_id": event.request_id})):
            self._answer(message, event)

    def _answer(self, message: Message, event: SearchAsked) -> None:
        if self._late(event):
            _SEARCHES.labels("late").inc()
            log.info("matcher.search_late")
            return
        reply = self._reply(event)
        _SEARCHES.labels(reply.error_code or "answered").inc()
        log.info("matcher.search_answered", hits=len(reply.hits), web=len(reply.web), code=reply.error_code)
        if reply.error_code in (_DIED, _INTERNAL):
            self._bury(message, reply.error_code, reply.error_details or "")
        shard, shards = self._pipeline.shard
        said = encode(msgspec.structs.replace(reply, shard=shard, shards=shards))
        self._patiently(partial(self._services.bus.publish, [Outgoing(RESULTS, event.reply_to, said)]))

    def _reply(self, event: SearchAsked) -> SearchAnswered:
        """Tried again, while somebody waits, where another try may help. Raises Stopped."""
        for tries in range(1, TRIES + 1):
            reply = self._try(event)
            if reply.error_code not in (_DIED, _INTERNAL) or tries == TRIES or self._late(event):
                break
            if self._stop.is_set():  # its decoder was ended for that
                raise Stopped
        return reply

    def _try(self, event: SearchAsked) -> SearchAnswered:
        try:
            data = self._services.store.get(event.key)
            source = Source(cache(partial(self._decoders.fingerprint, data)), partial(self._decoders.pixels, data))
            hits, candidates = self._pipeline.search(event, source) if event.category != WEB else ([], None)
            # what was crawled is not divided: one shard looks through it, another one for the next search
            mine = event.category != PRIVATE and self._pipeline.shard.holds(crc32(event.search.encode()))
            web = self._web.search(event, source.fingerprint()) if mine else []
            return SearchAnswered(event.search, tuple(hits), web=tuple(web), candidates=candidates)
        except FiligraneError as error:
            return SearchAnswered(event.search, (), error.code, error.details)
        except Exception:
            log.exception("matcher.search_failed")
            return SearchAnswered(event.search, (), _INTERNAL, "the search failed")

    def _late(self, event: SearchAsked) -> bool:
        return self._services.clock.now() >= event.deadline

    def _bury(self, message: Message, code: str, reason: str) -> None:
        log.warning("matcher.search_dead", code=code, reason=reason, **place(message))
        self._patiently(partial(self._services.bus.publish, [dead_letter(message, code, reason)]))

    def _patiently(self, work: Callable[[], None]) -> None:
        patiently(work, self._stop, SEARCHES)
