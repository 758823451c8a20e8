"""Decoding bytes from outside, within limits, in processes that may die.

Sizes are read from the header before anything is decoded. The decoder runs in a worker with bounded memory and processor time; when it
dies or hangs, only the picture that it held fails, and another worker takes its place.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import resource
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import cv2
import numpy as np
from PIL import Image

from core.errors import FiligraneError, InvalidImage, Unavailable, UnsupportedMedia
from core.imageinfo import image_info
from matcher.copies.features import SIDE, Fingerprint, fingerprint_gray
from matcher.pixels import MAX_SIDE, U8, gray, resized
from matcher.upright import opened, pixels, shown

DECODED_SIDE: Final = 1024
"""Long side that pixels are shrunk to before a watermark is looked for in them."""
FORMATS: Final = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP", "image/gif": "GIF"}
"""Pillow's names of what is decoded, by content type."""
PICTURES: Final = frozenset({*FORMATS, "image/jpg"})
"""Content types of what can be decoded, as clients name them."""

T = TypeVar("T")


class Limits(NamedTuple):
    """What one picture may cost: bytes and pixels as they come, seconds of wall and processor time, bytes of address space."""

    length: int = 64 << 20
    pixels: int = 120_000_000
    seconds: float = 30.0
    memory: int = 3 << 30


LIMITS: Final = Limits()
_START_SECONDS: Final = 60.0


def read_print(data: bytes, limits: Limits = LIMITS) -> Fingerprint:
    """The fingerprint of a picture to be searched; of a JPEG no more is decoded than it needs. Raises InvalidImage, UnsupportedMedia."""
    return fingerprint_gray(*decode_gray(data, SIDE, limits))


def read_pixels(data: bytes, limits: Limits = LIMITS) -> U8:
    """The upright picture, H x W x 3 sRGB, at most 1024 pixels on its longer side. Raises InvalidImage, UnsupportedMedia."""
    return shrunk(decode(data, DECODED_SIDE, limits)[0], DECODED_SIDE)


def shrunk(rgb: U8, side: int) -> U8:
    """The picture with at most `side` pixels on its longer side."""
    return resized(rgb, side) if max(rgb.shape[:2]) > side else rgb


def decode(
    data: bytes, side: int | None = None, limits: Limits = LIMITS, formats: Mapping[str, str] = FORMATS
) -> tuple[U8, tuple[int, int]]:
    """(the upright picture, H x W x 3 sRGB; (width, height) of the original). With `side` it may come smaller, not below `side`.

    Transparent pixels are shown on white; of an animation the first frame.

    Raises:
        InvalidImage: not a picture, damaged, or over the limits.
        UnsupportedMedia: a picture of another kind than those of `formats`.
    """
    image, size = _opened(data, "RGB", side, limits, formats)
    return pixels(image), size


def decode_gray(data: bytes, side: int, limits: Limits = LIMITS) -> tuple[U8, tuple[int, int]]:
    """Like `decode`, luma, H x W. A JPEG comes in the smallest scale that its decoder makes with `side` pixels on the longer side: neither
    its colour nor most of its coefficients are transformed."""
    image, size = _opened(data, "L", side, limits)
    return np.array(image, np.uint8) if image.mode == "L" else gray(np.array(image, np.uint8)), size


def _opened(
    data: bytes, mode: str, side: int | None, limits: Limits, formats: Mapping[str, str] = FORMATS
) -> tuple[Image.Image, tuple[int, int]]:
    """The upright picture as RGB, or as L where `mode` is that and it came so; and the original's size. Raises what `decode` does."""
    kind = check(data, limits, formats)
    try:
        with opened(data, [kind]) as image:
            _check_pixels(image.width, image.height, limits)
            return shown(image, mode, side)
    except (FiligraneError, MemoryError):
        raise
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        raise InvalidImage(f"the picture cannot be decoded: {error}") from error


def check(data: bytes, limits: Limits = LIMITS, formats: Mapping[str, str] = FORMATS) -> str:
    """Pillow's name of the format, from the header alone. Raises InvalidImage, UnsupportedMedia."""
    if len(data) > limits.length:
        raise InvalidImage(f"the picture has {len(data)} bytes; at most {limits.length} are read", code="image_too_large")
    info = image_info(data)
    if info.content_type is None:
        raise InvalidImage("the bytes are no picture")
    if info.content_type not in formats:
        raise UnsupportedMedia(f"pictures are {', '.join(formats.values())}; this is {info.content_type}")
    if info.width is not None and info.height is not None:
        _check_pixels(info.width, info.height, limits)
    return formats[info.content_type]


def _check_pixels(width: int, height: int, limits: Limits) -> None:
    if max(width, height) > MAX_SIDE:
        raise InvalidImage(f"the picture has {width} x {height} pixels; a side has at most {MAX_SIDE}", code="image_too_large")
    if width * height > limits.pixels:
        raise InvalidImage(f"the picture has {width} x {height} pixels; at most {limits.pixels} are decoded", code="image_too_large")


class Decoders:
    """A pool of worker processes. Thread-safe; a call waits for a free worker. A worker that dies or hangs is replaced."""

    def __init__(self, workers: int | None = None, limits: Limits = LIMITS) -> None:
        self._limits = limits
        self._free: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        self._closed = threading.Event()
        self._busy: set[_Worker] = set()
        self.size = workers or max(1, os.cpu_count() or 1)
        for _ in range(self.size):
            self._free.put(None)  # started when first needed

    def run(self, function: Callable[..., T], *args: Any, **named: Any) -> T:
        """What the function (importable by name) returns or raises in a worker.

        Raises:
            InvalidImage: the worker died or took longer than the limit.
            Unavailable: the pool is closed.
        """
        if self._closed.is_set():
            raise Unavailable("the decoders are closed")
        worker = self._free.get()
        try:
            worker = worker if worker is not None and worker.alive else _Worker(self._limits)
            self._busy.add(worker)
            if self._closed.is_set():  # `abandon` may have looked before
                raise Unavailable("the decoders are closed")
            return worker.run(function, args, named)
        except _Died as error:
            raise InvalidImage(str(error), code="decoder_died") from error
        finally:
            if worker is not None:
                self._busy.discard(worker)
            self._free.put(worker)

    def fingerprint(self, data: bytes) -> Fingerprint:
        """`read_print` in a worker; what the header tells is refused here."""
        return self._read(read_print, data)

    def pixels(self, data: bytes) -> U8:
        """`read_pixels` in a worker."""
        return self._read(read_pixels, data)

    def _read(self, function: Callable[[bytes, Limits], T], data: bytes) -> T:
        check(data, self._limits)
        return self.run(function, data, limits=self._limits)

    def abandon(self) -> None:
        """Ends what the workers are at: their calls raise InvalidImage, later ones Unavailable."""
        self._closed.set()
        for worker in self._busy.copy():
            worker.kill()

    def close(self) -> None:
        """Ends the workers, once they have finished what they hold."""
        self._closed.set()
        for worker in [self._free.get() for _ in range(self.size)]:
            if worker is not None and worker.alive:
                worker.stop()
            self._free.put(None)

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Died(Exception):
    """The worker is gone, or was ended because it took too long."""


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        # a fresh interpreter: after a fork the threads of FAISS and OpenCV would be gone
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, limits), daemon=True, name="filigrane-decoder")
        self._process.start()
        theirs.close()
        self.alive = True
        if not self._said_hello():
            self.stop()
            raise Unavailable("a decoder process could not be started", code="no_decoder")

    def run(self, function: Callable[..., T], args: tuple[Any, ...], named: dict[str, Any]) -> T:
        try:
            self._pipe.send((function, args, named))
            if not self._pipe.poll(self._limits.seconds):
                self.stop()
                raise _Died(f"the picture took longer than {self._limits.seconds:g} s")
            done, result = self._pipe.recv()
        except (EOFError, OSError) as error:
            self.stop()
            raise _Died("the picture ended the process that decoded it") from error
        if not done:
            raise result
        return result  # type: ignore[no-any-return]

    def _said_hello(self) -> bool:
        try:
            return self._pipe.poll(_START_SECONDS) and bool(self._pipe.recv())
        except (EOFError, OSError):
            return False

    def kill(self) -> None:
        """From another thread than the one that uses it, which sees its end."""
        with suppress(ValueError):  # closed meanwhile
            self._process.kill()

    def stop(self) -> None:
        self.alive = False
        self._pipe.close()
        self._process.kill()
        self._process.join()
        self._process.close()


def _serve(pipe: Connection, limits: Limits) -> None:
    """A worker's life: tasks in, results out, until the other end is closed."""
    # a signal to the whole group is the parent's to handle: it closes the pipe once it has what it asked for
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(1)
    _bound_memory(limits.memory)
    pipe.send(True)
    while True:
        try:
            function, args, named = pipe.recv()
        except EOFError:
            return
        _bound_time(limits.seconds)
        pipe.send(_attempt(function, args, named))


def _attempt(function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> tuple[bool, Any]:
    try:
        return True, function(*args, **named)
    except FiligraneError as error:
        return False, error
    except MemoryError:
        return False, InvalidImage("the picture needs more memory than is allowed", code="image_too_large")
    except Exception as error:
        return False, InvalidImage(f"the picture cannot be read: {type(error).__name__}: {error}")


def _bound_memory(more: int) -> None:
    """At most `more` bytes of address space above what is mapped now."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = _mapped() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))


def _mapped() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 2 << 30


def _bound_time(seconds: float) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    limit = int(used.ru_utime + used.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
