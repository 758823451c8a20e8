"""From where a message says that its picture is, to the decoded picture.

Pictures that lie near each other in a segment are read in one go and decoded a few ahead, so memory is bounded whatever a poll holds.
No store can prove the bytes of a range, so they are compared with the message's digest before anything is made of them.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final

from core.bus import Message
from core.errors import Corrupt, FiligraneError, InvalidImage, ObjectMissing
from core.events import ImageFound, StoredAt
from core.repo import crawls
from core.services import Services
from matcher.decode import Decoders, Picture
from matcher.member import Stopped
from matcher.pipeline import Load, stage_seconds

DAMAGED: Final = "bytes_damaged"
"""Code of bytes that are not those that were stored: on the way, which another try may mend, or in the store."""
_STRETCH: Final = 16 << 20
_GAP: Final = 256 << 10
_AHEAD: Final = 2
"""Pictures per decoder that are decoded before they are asked for."""
_LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Task:
    """A message and the picture that it tells of."""

    message: Message
    event: ImageFound


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

    def pictures(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Load]]:
        """Each task with a way to its picture, in the order of their bytes. A way may be asked again, and reads anew then."""
        for stretch in stretches(tasks):
            yield from self._stretch(stretch)

    def picture(self, event: ImageFound) -> Picture:
        """Raises ObjectMissing, InvalidImage, UnsupportedMedia, Unavailable, Stopped."""
        return self._result(self._threads.submit(self._decode, event, self._bytes(event)))

    def _stretch(self, stretch: Sequence[Task]) -> Iterator[tuple[Task, Load]]:
        """Its pictures, under way a few at a time; each on its own, with its own error, where they cannot be read in one go."""
        read = self._slices(stretch)
        ahead: deque[Future[Picture] | None] = deque()
        coming, begun = iter(stretch), set[str]()
        for task in stretch:
            while len(ahead) < _AHEAD * self._decoders.size and (next_ := next(coming, None)) is not None:
                if read is None or next_.event.sha256 in begun:  # the second time its fingerprint is known
                    ahead.append(None)
                    continue
                begun.add(next_.event.sha256)
                ahead.append(self._threads.submit(self._decode, next_.event, read(next_.event.bytes)))
            yield task, self._once(ahead.popleft(), task.event)

    def _slices(self, stretch: Sequence[Task]) -> Callable[[StoredAt], bytes] | None:
        start = min(t.event.bytes.offset for t in stretch)
        end = max(_end(t.event.bytes) for t in stretch)
        try:
            data = self._read(stretch[0].event, start, end - start)
        except FiligraneError:
            return None
        return lambda place: data[place.offset - start : _end(place) - start]

    def _once(self, future: Future[Picture] | None, event: ImageFound) -> Load:
        pending = [future] if future is not None else []

        def load() -> Picture:
            return self._result(pending.pop()) if pending else self.picture(event)

        return load

    def _result(self, future: Future[Picture]) -> Picture:
        while not wait([future], _LOOK_SECONDS).done:
            if self._stop.is_set():
                raise Stopped
        return future.result()

    def _decode(self, event: ImageFound, data: bytes) -> Picture:
        if hashlib.sha256(data).hexdigest() != event.sha256:
            raise InvalidImage(f"{event.bytes.key} from {event.bytes.offset} on holds other bytes than were stored", code=DAMAGED)
        with stage_seconds.labels("decode").time():
            return self._decoders.read(data)

    def _bytes(self, event: ImageFound) -> bytes:
        try:
            data = self._read(event, event.bytes.offset, event.bytes.length)
        except Corrupt as error:  # the store has tried long enough; this must not hold up the others for ever
            raise InvalidImage(error.details, code=DAMAGED) from error
        if len(data) != event.bytes.length:
            raise ObjectMissing(f"{event.bytes.key} ends before the picture does")
        return data

    def _read(self, event: ImageFound, offset: int, length: int) -> bytes:
        """Bytes of a segment, or of the artifact that it was joined into. Raises ObjectMissing, Corrupt, Unavailable."""
        try:
            with stage_seconds.labels("read").time():
                return self._services.store.get_range(event.bytes.key, offset, length)
        except ObjectMissing:
            with self._services.database.read() as tx:
                key, base = crawls.resolve_segment(tx, event.session, event.cycle, event.bytes.seq)
            return self._services.store.get_range(key, base + offset, length)


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
