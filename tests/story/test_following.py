"""One picture, followed by its request ids through the logs of crawler, matcher and API."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from skimage import data as pictures

from core.repo import accounts, matches
from core.services import Services
from core.settings import Settings
from tests.site import Reply, Site

pytestmark = pytest.mark.story
ODD = "/cat.jpg?x=%0a%1b%5b31m&password=hunter2-in-a-url"
PROCESS = {"role", "host", "pid", "version", "event", "level", "timestamp"}


def jpeg(rgb: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


@contextmanager
def serving(data: Path, log: Path) -> Iterator[httpx2.Client]:
    """`filigrane serve`, and a client of its API."""
    environment = dict(os.environ, FILIGRANE_ALLOW_NETWORKS="127.0.0.0/8", FILIGRANE_SEGMENT_SECONDS="0.5")
    command = [sys.executable, "-m", "filigrane.cli", "serve", "--data", str(data), "--port", "0"]
    with log.open("w") as stream, subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stream) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            with httpx2.Client(base_url=f"{url}/api/v1", timeout=60) as client:
                yield client
        finally:
            process.terminate()
            process.wait(40)


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.1)


def test_a_picture_is_followed_by_its_request_ids(tmp_path: Path) -> None:
    cat = pictures.chelsea()  # type: ignore[no-untyped-call]
    routes = {"/": Reply(f'<img src="{ODD}">'.encode()), ODD: Reply(jpeg(cat[:, 20:]), content_type="image/jpeg")}
    data, log = tmp_path / "data", tmp_path / "log"
    with Services.open(Settings(data=data)) as services, services.database.write() as tx:
        account, token = accounts.create(tx, services.settings.secret, "jo", now=services.clock.now())
    with Site(routes) as site, serving(data, log) as http:
        http.headers["Authorization"] = f"Token {token}"
        put = http.put("/media/jo/cat.jpg", content=jpeg(cat), headers={"Content-Type": "image/jpeg"})
        assert put.status_code == 201, put.text
        http.post("/crawling/sessions/", json={"url": f"{site.url}/", "download_delay": 0}).raise_for_status()
        wait_until(lambda: http.get("/matches/web").json()["count"] == 1)
        search = http.post("/searches/", files={"file": ("q.jpg", jpeg(cat[:, ::-1]), "image/jpeg")})
        assert search.status_code == 200, search.text
    with Services.open(Settings(data=data)) as services, services.database.read() as tx:
        (match,) = tx.scalars(matches.web_matches(account.id))
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(line.keys() >= PROCESS for line in lines)

    def said(request_id: str) -> set[tuple[str, str]]:
        return {(line["role"], line["event"]) for line in lines if line.get("request_id") == request_id}

    assert said(match.request_id) >= {("crawler", "crawler.picture_published"), ("matcher", "matcher.matched")}
    assert said(search.headers["X-Request-Id"]) == {("api", "request"), ("matcher", "matcher.search_answered")}
    assert ("api", "request") in said(put.headers["X-Request-Id"])
    for line in lines:
        if line.get("request_id") == match.request_id:
            assert line.get("sha256", match.sha256) == match.sha256
    assert "\x1b" not in text
    assert "hunter2" not in text
    assert token not in text
