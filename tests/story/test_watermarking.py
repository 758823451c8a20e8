"""The story of one watermarked picture across processes: uploaded, marked and registered over HTTP, published, crawled, found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image
from skimage import data
from sqlalchemy import select

from core.models import Watermarking
from core.repo import accounts
from core.services import Services
from core.settings import Settings
from tests.crawler.crawling import running
from tests.processes import start
from tests.servers import free_port
from tests.site import Reply, Site
from tests.story.test_page_to_json import encode, matching
from tests.story.test_put_under_kills import answers, serve_until_killed, wait_until

pytestmark = [pytest.mark.story, pytest.mark.timeout(300)]
SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "register_watermarked.py"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data", allow_networks=(ip_network("127.0.0.0/8"),), public_url=f"http://127.0.0.1:{free_port()}")


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    with Services.open(settings) as opened:
        yield opened


@pytest.fixture
def http(settings: Settings, services: Services) -> Iterator[httpx2.Client]:
    """An account's client of an API in a process of its own."""
    with services.database.write() as tx:
        _, token = accounts.create(tx, settings.secret, "jo", now=services.clock.now())
    process = start(serve_until_killed, settings, int(settings.public_url.rpartition(":")[2]), "nowhere")
    try:
        with httpx2.Client(base_url=settings.public_url, headers={"Authorization": f"Token {token}"}, timeout=120) as client:
            wait_until(lambda: answers(client))
            yield client
    finally:
        process.kill()
        process.join()


def run_script(http: httpx2.Client, picture: Path, path: str) -> dict[str, str]:
    """What docs/examples has, as it stands there."""
    environment = {**os.environ, "API": f"{str(http.base_url).rstrip('/')}/api/v1", "TOKEN": token_of(http)}
    done = subprocess.run([sys.executable, str(SCRIPT), str(picture), path], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def token_of(http: httpx2.Client) -> str:
    return http.headers["Authorization"].removeprefix("Token ")


def search(http: httpx2.Client, picture: bytes) -> list[dict[str, Any]]:
    answer = http.post("/api/v1/searches/", files={"file": ("q.jpg", picture, "image/jpeg")}, data={"category": "private"})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["matches"])


def cropped(picture: bytes, path: Path) -> bytes:
    """Half of each side, compressed hard."""
    path.write_bytes(picture)
    with Image.open(path) as image:
        width, height = image.size
        return encode(np.asarray(image.crop((width // 8, height // 4, width * 5 // 8, height * 3 // 4)).convert("RGB")), quality=60)


def test_326_327_uploaded_marked_registered_crawled_and_found(http: httpx2.Client, services: Services, tmp_path: Path) -> None:
    original = tmp_path / "rocket.jpg"
    original.write_bytes(encode(data.rocket(), quality=95))  # type: ignore[no-untyped-call]
    done = run_script(http, original, "jo/2026/rocket.jpg")
    numbered = http.post(
        "/api/v1/watermarking/?payload=4711&sync=false", content=original.read_bytes(), headers={"Content-Type": "image/jpeg"}
    ).json()
    wait_until(lambda: http.get(numbered["registration"]).status_code == 200)
    never = http.post("/api/v1/watermarking/", content=original.read_bytes(), headers={"Content-Type": "image/jpeg"}).json()
    again = http.put("/api/v1/media/jo/2026/rocket-4711.jpg", json={"url": numbered["registration"]})
    assert again.status_code == 201, again.text
    copies = {name: http.get(url).content for name, url in (("first", done["publish"]), ("second", numbered["watermarked"]))}
    routes = {
        "/": Reply(b'<img src="/first.jpg"><a href="/more">more</a>'),
        "/more": Reply(b'<img src="/second.jpg">'),
        **{f"/{name}.jpg": Reply(cropped(copy, tmp_path / name), content_type="image/jpeg") for name, copy in copies.items()},
    }
    with Site(routes) as site, matching(services), running(services):
        http.post("/api/v1/crawling/sessions/", json={"url": f"{site.url}/", "download_delay": 0})
        wait_until(lambda: http.get("/api/v1/matches/web", params={"watermarked": True}).json()["count"] == 2)
        found = http.get("/api/v1/matches/web", params={"watermarked": True}).json()["results"]
        assert {(m["query_url"], m["paths"][0]["path"], m["payload"]) for m in found} == {
            (f"{site.url}/first.jpg", "jo/2026/rocket.jpg", None),
            (f"{site.url}/second.jpg", "jo/2026/rocket-4711.jpg", 4711),
        }
        assert all(0 <= m["p_value"] <= 1e-9 for m in found)
        marked = [m for m in search(http, copies["second"]) if m["watermarked"]]  # 105
        assert [(m["paths"][0]["path"], m["payload"]) for m in marked] == [("jo/2026/rocket-4711.jpg", 4711)]
        assert 0 <= marked[0]["p_value"] <= 1e-9
        # 106: neither the original nor a copy whose key was never registered
        for unknown in (original.read_bytes(), http.get(never["watermarked"]).content):
            hits = search(http, unknown)
            assert hits
            assert not any(m["watermarked"] for m in hits)
        question = {"query": done["publish"], "registration": done["media"]}
        assert http.post("/api/v1/watermarking/detect/", json=question).json()["marked"] is True
        assert http.delete("/api/v1/media/jo/2026/rocket.jpg").status_code == 204  # 135
        assert not any(m["watermarked"] for m in search(http, copies["first"]))


def test_257_what_nobody_waits_for_outlives_the_process(settings: Settings, services: Services) -> None:
    """kill -9 of the API that took the order, while it works on it or before; the next one does it."""
    with services.database.write() as tx:
        _, token = accounts.create(tx, settings.secret, "jo", now=services.clock.now())
    port = int(settings.public_url.rpartition(":")[2])
    picture = encode(data.rocket(), quality=95)  # type: ignore[no-untyped-call]
    with httpx2.Client(base_url=settings.public_url, headers={"Authorization": f"Token {token}"}, timeout=120) as http:
        process = start(serve_until_killed, settings, port, "nowhere")
        try:
            wait_until(lambda: answers(http))
            taken = http.post("/api/v1/watermarking/?sync=false", content=picture, headers={"Content-Type": "image/jpeg"})
            assert taken.status_code == 201
        finally:
            process.kill()
            process.join()
        with services.database.write() as tx:
            (order,) = tx.scalars(select(Watermarking)).all()
            order.due = order.created  # as if its patience were over
        process = start(serve_until_killed, settings, port, "nowhere")
        try:
            wait_until(lambda: answers(http))
            wait_until(lambda: http.get(taken.json()["registration"]).status_code == 200)
            question = {"query": taken.json()["watermarked"], "registration": taken.json()["registration"]}
            assert http.post("/api/v1/watermarking/detect/", json=question).json()["marked"] is True
            left = http.post("/api/v1/watermarking/", json={}).headers["X-RateLimit-Watermarking-Daily-Remaining"]
            assert int(left) == settings.watermarking_daily - 1
        finally:
            process.kill()
            process.join()
