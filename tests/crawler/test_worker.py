"""A worker over a real little site: what it asks for, what it keeps, and what it leaves."""

from __future__ import annotations

import hashlib
import io

from PIL import Image as Pillow

from core.services import Services
from tests.crawler.crawling import artifact, batches, crawl, pictures, rows
from tests.site import Reply, Site


def jpeg(colour: int = 120, size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", size, (colour, 80, 200 - colour)).save(buffer, "JPEG")
    return buffer.getvalue()


def picture(colour: int = 120) -> Reply:
    return Reply(jpeg(colour), content_type="image/jpeg", headers={"Last-Modified": "Tue, 03 Feb 2026 10:00:00 GMT"})


def page(*links: str, images: tuple[str, ...] = (), more: str = "") -> Reply:
    body = "".join(f'<a href="{link}">on</a>' for link in links) + "".join(f'<img src="{image}" alt="the {image}">' for image in images)
    return Reply(f"<!doctype html><title>x</title>{body}{more}".encode())


def test_a_site_is_followed_and_every_count_holds(services: Services) -> None:
    routes = {
        "/": page("/a", "/b", "/gone", "http://elsewhere.example/x", images=("/1.jpg",)),
        "/a": page("/", images=("/1.jpg", "/2.jpg")),
        "/b": page("/moved", images=("/same-as-1.jpg",)),
        "/moved": Reply(b"", 302, headers={"Location": "/c"}),
        "/c": page(images=("/missing.jpg",)),
        "/1.jpg": picture(10),
        "/2.jpg": picture(90),
        "/same-as-1.jpg": picture(10),
    }
    with Site(routes) as site:
        session = crawl(services, f"{site.url}/")
    assert (session.state, session.cycle_count, session.reason) == ("done", 1, None)
    (batch,) = batches(services, session)
    assert sorted(site.paths()) == sorted(["/", "/a", "/b", "/gone", "/moved", "/c", "/1.jpg", "/2.jpg", "/same-as-1.jpg", "/missing.jpg"])
    images = {(row["url"].removeprefix(site.url), row["page_url"].removeprefix(site.url)): row for row in rows(services, batch, "images.log")}
    assert set(images) == {("/1.jpg", "/"), ("/1.jpg", "/a"), ("/2.jpg", "/a"), ("/same-as-1.jpg", "/b"), ("/missing.jpg", "/c")}
    assert images["/missing.jpg", "/c"]["status"] == "404"
    kept = pictures(services, batch)
    assert set(kept) == {f"{hashlib.sha256(jpeg(colour)).hexdigest()}.jpg" for colour in (10, 90)}
    tar = artifact(services, batch, "images.tar")
    for row in images.values():
        if row["status"] == "200":
            offset, length = int(row["offset"]), int(row["bytes"])
            assert hashlib.md5(tar[offset : offset + length]).hexdigest() == row["md5"]
            assert (row["width"], row["height"], row["last_modified"]) == ("64", "48", "2026-02-03T10:00:00Z")
    outcomes = {row["url"].removeprefix(site.url): (row["status"], row["outcome"], row["depth"]) for row in rows(services, batch, "pages.log")}
    assert outcomes == {
        "/robots.txt": ("404", "fetched", "0"),
        "/": ("200", "fetched", "0"),
        "/a": ("200", "fetched", "1"),
        "/b": ("200", "fetched", "1"),
        "/gone": ("404", "fetched", "1"),
        "/moved": ("302", "fetched", "2"),
        "/c": ("200", "fetched", "2"),
    }
    assert [(row["url"], row["reason"], row["count"]) for row in rows(services, batch, "skipped.log")] == [
        ("http://elsewhere.example/x", "scope", "1")
    ]
