"""The story of one picture in one process: registered over HTTP, crawled, matched, read over HTTP."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data
from starlette.testclient import TestClient

import filigrane
from api_shim.app import create_app
from core import outbox
from core.repo import accounts
from core.services import Services
from core.shards import GROUP
from matcher import registrar
from matcher import worker as matcher
from tests.crawler.crawling import running, wait_until
from tests.site import Reply, Site

pytestmark = pytest.mark.story


def encode(rgb: np.ndarray[Any, np.dtype[np.uint8]], kind: str = "JPEG", size: tuple[int, int] | None = None, **options: int) -> bytes:
    picture = Image.fromarray(rgb)
    buffer = io.BytesIO()
    (picture.resize(size) if size else picture).save(buffer, kind, **options)
    return buffer.getvalue()


@contextmanager
def matching(services: Services) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=matcher.run, args=(services, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def test_from_a_page_to_json(services: Services, tmp_path: Path) -> None:
    cat, rocket, coffee = data.chelsea(), data.rocket(), data.coffee()  # type: ignore[no-untyped-call]
    marked, registration = filigrane.embed(rocket)
    now = services.clock.now()
    with services.database.write() as tx:
        account, token = accounts.create(tx, services.settings.secret, "jo", now=now)
    # watermarked media come in through the registrar until LMK files travel over HTTP
    original = encode(rocket, "PNG")
    prepared = registrar.prepare(original)
    registrar.register(services, account.id, "jo/rocket.png", prepared, disk_usage=len(original), watermark=registration)
    outbox.drain(services)
    routes = {
        "/": Reply(b'<a href="/cats">cats</a><img src="/rocket.jpg" alt="lift-off">'),
        "/cats": Reply(b'<img src="/cat.jpg"><img src="/coffee.jpg"><a href="/more">more</a>'),
        "/more": Reply(b'<img src="/cat.jpg">'),
        "/rocket.jpg": Reply(encode(marked, quality=80), content_type="image/jpeg"),
        "/cat.jpg": Reply(encode(cat[:, 40:], size=(330, 240), quality=60), content_type="image/jpeg"),
        "/coffee.jpg": Reply(encode(coffee, quality=80), content_type="image/jpeg"),
    }
    with Site(routes) as site, matching(services), running(services), TestClient(create_app(services)) as http:
        http.headers["Authorization"] = f"Token {token}"
        put = http.put("/api/v1/media/jo/pets/cat.png", content=encode(cat, "PNG"), headers={"Content-Type": "image/png"})
        assert put.status_code == 201, put.text
        session = http.post("/api/v1/crawling/sessions/", json={"url": f"{site.url}/", "download_delay": 0}).json()
        wait_until(lambda: http.get(session["url"]).json()["state"] == "done")
        wait_until(lambda: http.get("/api/v1/matches/web").json()["count"] == 3 and not services.bus.lag("images", GROUP))
        found = http.get("/api/v1/matches/web").json()["results"]
        (batch,) = http.get("/api/v1/crawling/batches/").json()["results"]
        tar = http.get(batch["images"]["tar"])
        query = {"file": ("q.jpg", encode(np.fliplr(cat)), "image/jpeg")}
        search = http.post("/api/v1/searches/", files=query, data={"category": "private"}).json()
        web = http.post("/api/v1/searches/", files=query, data={"category": "web"}).json()
        both = http.post("/api/v1/searches/", files=query).json()
        late = http.put("/api/v1/media/jo/coffee.png", content=encode(coffee, "PNG"), headers={"Content-Type": "image/png"})
        assert late.status_code == 201, late.text
        wait_until(lambda: http.get(f"{late.json()['web_matches']}").json()["count"] == 1)
        (found_late,) = http.get(late.json()["web_matches"]).json()["results"]
    assert {(m["query_url"], m["query_page_url"], m["watermarked"], m["paths"][0]["path"]) for m in found} == {
        (f"{site.url}/rocket.jpg", f"{site.url}/", True, "jo/rocket.png"),
        (f"{site.url}/cat.jpg", f"{site.url}/cats", False, "jo/pets/cat.png"),
        (f"{site.url}/cat.jpg", f"{site.url}/more", False, "jo/pets/cat.png"),
    }
    (mark,) = [m for m in found if m["watermarked"]]
    assert 0 <= mark["p_value"] <= 1e-9
    assert all(m["verdict"] == "copy" and m["score"] > 0 for m in found if not m["watermarked"])
    assert (batch["images"]["count"], batch["pages"]["count"]) == (4, 4)
    with tarfile.open(fileobj=io.BytesIO(tar.content)) as opened:
        assert len(opened.getnames()) == 3
    assert [hit["paths"][0]["path"] for hit in search["matches"]] == ["jo/pets/cat.png"]
    assert [(hit["image"]["url"], hit["image"]["page_url"], hit["image"]["type"]) for hit in web["matches"]] == [
        (f"{site.url}/cat.jpg", f"{site.url}/{page}", "web") for page in ("cats", "more")
    ]
    assert all(hit["mirrored"] and hit["paths"][0]["path"] == "jo/pets/cat.png" for hit in web["matches"])
    assert [hit["image"]["type"] for hit in both["matches"]] == ["registered", "web", "web"]
    assert (found_late["query_url"], found_late["query_page_url"]) == (f"{site.url}/coffee.jpg", f"{site.url}/cats")
