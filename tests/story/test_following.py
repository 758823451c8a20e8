"""One picture, followed by its request ids through the logs of crawler, matcher and API."""

from __future__ import annotations

import io
import json
import os
import re
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
from filigrane.roles import ROLES
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
    command = [sys.executable, "-m", "filigrane.cli", "serve", "--data", str(data), "--port", "0", "--metrics", "127.0.0.1:0"]
    with log.open("w") as stream, subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stream) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            with httpx2.Client(base_url=f"{url}/api/v1", timeout=60) as client:
                yield client
        finally:
            process.terminate()
            process.wait(40)


def figures(log: Path) -> dict[str, str]:
    """Role -> what its /metrics says, at the address that its log tells."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    ports = {line["role"]: line["port"] for line in lines if line["event"] == "monitor.listening"}
    for port in ports.values():
        for path in ("healthz", "readyz"):
            assert httpx2.get(f"http://127.0.0.1:{port}/{path}").status_code == 200
    return {role: httpx2.get(f"http://127.0.0.1:{port}/metrics").text for role, port in ports.items()}


def check_figures(shown: dict[str, str]) -> None:
    """Each role has counted its part of the story, under names without anything that the world makes up."""
    values = {
        role: {name: float(value) for name, value in re.findall(r"^(filigrane_\S+) (\S+)$", shown[role], re.MULTILINE)} for role in ROLES
    }
    assert values["crawler"]['filigrane_crawler_requests_total{kind="image",outcome="200"}'] == 1
    assert values["crawler"]["filigrane_crawler_publication_seconds_count"] == 1
    assert values["crawler"]['filigrane_crawler_bytes_total{kind="image"}'] > 1000
    assert values["matcher"]['filigrane_matcher_images_total{outcome="matched"}'] == 1
    assert values["matcher"]["filigrane_matcher_matches_total"] == 1
    stages = ("read", "decode", "candidates", "judge", "record")
    assert all(values["matcher"][f'filigrane_matcher_stage_seconds_count{{stage="{stage}"}}'] > 0 for stage in stages)
    put = 'filigrane_api_request_seconds_count{method="PUT",route="/api/v1/media/{path:path}",status="201"}'
    assert values["api"][put] == 1
    assert values["scheduler"]["filigrane_scheduler_outbox_rows"] >= 0
    for role in ROLES:
        assert values[role]['filigrane_part_seconds_count{call="read",part="database"}'] > 0
        assert values[role]["filigrane_loop_age_seconds"] < 60
        assert "127.0.0.1" not in shown[role]


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
        shown = figures(log)
    with Services.open(Settings(data=data)) as services, services.database.read() as tx:
        (match,) = tx.scalars(matches.web_matches(account.id))
    check_figures(shown)
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
