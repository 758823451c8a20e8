"""From where a message says that its picture is, to its fingerprint and its pixels.

Pictures that lie near each other in a segment are read in one go and decoded a few ahead, so memory is bounded whatever a poll holds.
No store can prove the bytes of a range, so they are compared with the message's digest before anything is made of them.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Final, NamedTuple, TypeVar

from core.bus import Message
from core.errors import Corrupt, FiligraneError, InvalidImage, ObjectMissing, Unavailable
from core.events import ImageFound, StoredAt
from core.repo import crawls
from core.services import Services
from matcher.copies.features import Fingerprint
from matcher.decode import Decoders
from matcher.member import Stopped
from matcher.pipeline import Source, stage_seconds

DAMAGED: Final = "bytes_damaged"
"""Code of bytes that are not those that were stored: on the way, which another try may mend, or in the store."""
_STRETCH: Final = 16 << 20
_GAP: Final = 256 << 10
_AHEAD: Final = 2
"""Pictures per decoder that are decoded before they are asked for."""
_LOOK_SECONDS: Final = 0.5

T = TypeVar("T")


class Task(NamedTuple):
    """A message and the picture that it tells of; `fingerprint`: its bytes, where the message has it."""

    message: Message
    event: ImageFound
    fingerprint: bytes = b""


class Reader:
    """Reads and decodes for one thread. Closed by its owner."""

    def __init__(self, services: Services, decoders: Decoders, stop: threading.Event) -> None:
        self._services = services
        self._decoders = decoders
        self._stop = stop
        self._threads = ThreadPoolExecutor(decoders.size, thread_name_prefix="decoding")

    def close(self) -> None:
        """Waits for what is being decoded."""
        self._threads.shutdown(cancel_futures=True)

    def pictures(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Source]]:
        """Each task with a way to its picture, in the order of their bytes. A way may be taken again, and reads anew then."""
        for stretch in stretches(tasks):
            yield from self._stretch(stretch)

    def source(self, event: ImageFound) -> Source:
        """A way to a picture that is read and decoded when it is asked for."""
        return self._source(event, None)

    def _stretch(self, stretch: Sequence[Task]) -> Iterator[tuple[Task, Source]]:
        """Its pictures, under way a few at a time; each on its own, with its own error, where they cannot be read in one go."""
        read = self._slices(stretch)
        ahead: deque[Future[Fingerprint] | None] = deque()
        coming, begun = iter(stretch), set[str]()
        for task in stretch:
            while len(ahead) < _AHEAD * self._decoders.size and (next_ := next(coming, None)) is not None:
                if read is None or next_.event.sha256 in begun:  # the second time its fingerprint is known
                    ahead.append(None)
                    continue
                begun.add(next_.event.sha256)
                ahead.append(self._threads.submit(self._decode, self._decoders.fingerprint, next_.event, read(next_.event.bytes)))
            yield task, self._source(task.event, ahead.popleft())

    def _slices(self, stretch: Sequence[Task]) -> Callable[[StoredAt], bytes] | None:
        start = min(t.event.bytes.offset for t in stretch)
        end = max(_end(t.event.bytes) for t in stretch)
        try:
            data = _read(self._services, stretch[0].event, start, end - start)
        except FiligraneError:
            return None
        return lambda place: data[place.offset - start : _end(place) - start]

    def _source(self, event: ImageFound, coming: Future[Fingerprint] | None) -> Source:
        pending = [coming] if coming is not None else []

        def fingerprint() -> Fingerprint:
            return self._result(pending.pop()) if pending else self._decoded(self._decoders.fingerprint, event)

        return Source(fingerprint, partial(self._decoded, self._decoders.pixels, event))

    def _decoded(self, decode: Callable[[bytes], T], event: ImageFound) -> T:
        """Raises ObjectMissing, InvalidImage, UnsupportedMedia, Unavailable, Stopped."""
        return self._result(self._threads.submit(self._decode, decode, event, _bytes(self._services, event)))

    def _result(self, future: Future[T]) -> T:
        while not wait([future], _LOOK_SECONDS).done:
            if self._stop.is_set():
                raise Stopped
        return future.result()

    def _decode(self, decode: Callable[[bytes], T], event: ImageFound, data: bytes) -> T:
        check_digest(event, data)
        with stage_seconds.labels("decode").time():
            return decode(data)


def stored_bytes(services: Services, event: ImageFound) -> bytes:
    """The picture's bytes, those that were stored. Raises ObjectMissing, InvalidImage, Unavailable."""
    data = _bytes(services, event)
    check_digest(event, data)
    return data


def check_digest(event: ImageFound, data: bytes) -> None:
    """Raises InvalidImage."""
    if hashlib.sha256(data).hexdigest() != event.sha256:
        raise InvalidImage(f"{event.bytes.key} from {event.bytes.offset} on holds other bytes than were stored", code=DAMAGED)


def is_away(error: FiligraneError) -> bool:
    """Whether a part does not answer, which passes; damage does not."""
    return isinstance(error, Unavailable) and not isinstance(error, Corrupt)


def _bytes(services: Services, event: ImageFound) -> bytes:
    try:
        data = _read(services, event, event.bytes.offset, event.bytes.length)
    except Corrupt as error:  # the store has tried long enough; this must not hold up the others for ever
        raise InvalidImage(error.details, code=DAMAGED) from error
    if len(data) != event.bytes.length:
        raise ObjectMissing(f"{event.bytes.key} ends before the picture does")
    return data


def _read(services: Services, event: ImageFound, offset: int, length: int) -> bytes:
    """Bytes of a segment, or of the artifact that it was joined into. Raises ObjectMissing, Corrupt, Unavailable."""
    try:
        with stage_seconds.labels("read").time():
            return services.store.get_range(event.bytes.key, offset, length)
    except ObjectMissing:
        with services.database.read() as tx:
            key, base = crawls.resolve_segment(tx, event.session, event.cycle, event.bytes.seq)
        return services.store.get_range(key, base + offset, length)


def stretches(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    """Tasks whose pictures lie near each other in one segment, in the order of their bytes: one read each."""
    stretch: list[Task] = []
    end = 0
    for task in sorted(tasks, key=lambda t: (t.event.bytes.key, t.event.bytes.offset)):
        if stretch and not _near(stretch[0].event.bytes, end, task.event.bytes):
            yield stretch
            stretch = []
        end = max(end, _end(task.event.bytes)) if stretch else _end(task.event.bytes)
        stretch.append(task)
    if stretch:
        yield stretch


def _end(place: StoredAt) -> int:
    return place.offset + place.length


def _near(first: StoredAt, end: int, place: StoredAt) -> bool:
    return first.key == place.key and place.offset - end <= _GAP and _end(place) - first.offset <= _STRETCH
