"""A static site on loopback, in a process of its own so that its CPU is not counted; and a generated one."""

from __future__ import annotations

import functools
import http.server
import io
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import numpy as np
from PIL import Image

Counted: TypeAlias = "Synchronized[int]"


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: Counted
    asked: Path | None

    def log_message(self, format: str, *args: object) -> None:
        """Counts instead of talking."""
        with self.answers.get_lock():
            self.answers.value += 1
            if self.asked is not None:
                with self.asked.open("a") as file:
                    file.write(f"{time.monotonic():.4f} {self.path}\n")


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed, or gave up, is no news."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def _serve(folder: str, host: str, asked: Path | None, pipe: Connection, answers: Counted) -> None:
    _Handler.answers, _Handler.asked = answers, asked
    server = _Server((host, 0), functools.partial(_Handler, directory=folder))
    pipe.send(server.server_port)
    server.serve_forever()


class StaticSite:
    """`with StaticSite(folder) as site: site.url`; with `asked`, a file that gets a line for each request: seconds and path."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", asked: Path | None = None) -> None:
        self._folder = folder
        self._host = host
        self._asked = asked

    def __enter__(self) -> Self:
        spawn = multiprocessing.get_context("spawn")
        here, there = spawn.Pipe()
        self._answers: Counted = spawn.Value("q", 0)
        self._process = spawn.Process(target=_serve, args=(str(self._folder), self._host, self._asked, there, self._answers), daemon=True)
        self._process.start()
        self.url = f"http://{self._host}:{here.recv()}"
        return self

    def take_count(self) -> int:
        """Answers since the last call."""
        with self._answers.get_lock():
            count, self._answers.value = self._answers.value, 0
        return int(count)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.join()


def generate(folder: Path, *, pages: int, images: int) -> Path:
    """A site of pages that link to each other and show pictures of their own; the same one each time."""
    random = np.random.default_rng(7)
    for number in range(images):
        rough = random.integers(0, 255, (8, 12, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(rough).resize((480, 320), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
        (folder / f"{number}.jpg").write_bytes(buffer.getvalue())
    names = ["index.html", *(f"page{number}.html" for number in range(1, pages))]
    for number, name in enumerate(names):
        links = "".join(f'<a href="{names[int(other)]}">on</a> ' for other in random.integers(0, pages, 30))
        on = f'<a href="{names[(number + 1) % pages]}">next</a>'
        shown = "".join(f'<img src="{int(image)}.jpg" alt="picture {int(image)}">' for image in random.integers(0, images, 4))
        (folder / name).write_text(f"<!doctype html><title>{name}</title><h1>{name}</h1><p>{'words ' * 200}</p>{shown}{on}{links}")
    return folder
