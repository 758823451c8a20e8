"""A worker over a real little site: what it asks for, what it keeps, and what it leaves."""

from __future__ import annotations

import hashlib
import io
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image as Pillow

from core.repo import crawls
from core.services import Services
from core.settings import Settings
from tests.crawler.crawling import (
    add_session,
    artifact,
    batches,
    crawl,
    pictures,
    rows,
    running,
    session_of,
    wait_for,
    wait_until,
)  # fmt: skip
from tests.site import Reply, Route, Site


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
    images = {
        (row["url"].removeprefix(site.url), row["page_url"].removeprefix(site.url)): row for row in rows(services, batch, "images.log")
    }
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
    outcomes = {
        row["url"].removeprefix(site.url): (row["status"], row["outcome"], row["depth"]) for row in rows(services, batch, "pages.log")
    }
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


def test_robots_txt_is_obeyed_and_asked_for_once(services: Services) -> None:
    robots = Reply(b"User-agent: *\nDisallow: /private/\nCrawl-delay: 0.2\n", content_type="text/plain")
    routes = {
        "/robots.txt": robots,
        "/": page("/a", "/private/b", images=("/private/c.jpg", "/1.jpg")),
        "/a": page(),
        "/private/b": page(),
        "/private/c.jpg": picture(),
        "/1.jpg": picture(),
    }
    with Site(routes) as site:
        session = crawl(services, f"{site.url}/")
        asked = list(site.asked)
    assert sorted(one.path for one in asked) == ["/", "/1.jpg", "/a", "/robots.txt"]
    assert all(later.at - earlier.at >= 0.195 for earlier, later in pairwise(asked))
    (batch,) = batches(services, session)
    assert {(row["url"].removeprefix(site.url), row["reason"]) for row in rows(services, batch, "skipped.log")} == {
        ("/private/b", "robots"),
        ("/private/c.jpg", "robots"),
    }


def test_two_sessions_of_one_domain_share_its_clock(services: Services) -> None:
    routes: dict[str, Route] = {"/": page("/a", "/b", "/c"), "/2": page("/d", "/e"), **{f"/{name}": page() for name in "abcde"}}
    with Site(routes) as site:
        first = add_session(services, f"{site.url}/", download_delay=0.1)
        second = add_session(services, f"{site.url}/2", download_delay=0.15)
        with running(services):
            wait_for(services, first, second)
        times = [one.at for one in site.asked]
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.095
    assert len(times) == 8
    assert all(session_of(services, session.id).state == "done" for session in (first, second))


def test_a_slow_server_is_left_after_the_timeout_and_the_cycle_after_its_time(services: Services) -> None:
    routes = {"/": page("/slow", "/a"), "/slow": Reply(b"late", wait=3.0), "/a": page("/b"), "/b": page()}
    with Site(routes) as site:
        session = crawl(services, f"{site.url}/", download_timeout=0.3)
    (batch,) = batches(services, session)
    slow = [row for row in rows(services, batch, "pages.log") if row["url"].endswith("/slow")]
    assert [(row["outcome"], row["reason"], row["status"]) for row in slow] == [("failed", "timeout", "")] * 2
    assert session.state == "done"


def test_what_time_did_not_reach_comes_first_in_the_next_cycle(services: Services) -> None:
    routes: dict[str, Route] = {"/": page(*(f"/{n}" for n in range(30))), **{f"/{n}": page() for n in range(30)}}
    with Site(routes) as site:
        session = crawl(services, f"{site.url}/", download_delay=0.1, crawl_delay=1.0)
        first = site.paths()
        (batch,) = batches(services, session)
        left = {row["url"].removeprefix(site.url) for row in rows(services, batch, "skipped.log") if row["reason"] == "time"}
        assert left == set(routes) - set(first)
        with services.database.write() as tx:
            crawls.run_session(tx, session.account_id, session.id, services.clock.now())
        with running(services):
            wait_for(services, session)
        second = site.paths()[len(first) :]
    assert session_of(services, session.id).cycle_count == 2
    assert second[0] == "/"
    assert set(second[1:4]) <= left


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(b"%PDF-1.7", content_type="application/pdf"), "not a page (application/pdf)"),
        (Reply(b"gone", 404), "answered 404"),
        (Reply(b"", 302, headers={"Location": "http://elsewhere.example/"}), "answered 302"),
    ],
)
def test_a_start_url_that_is_no_page_fails_the_session_and_says_why(services: Services, reply: Reply, said: str) -> None:
    with Site({"/start": reply}) as site:
        session = crawl(services, f"{site.url}/start")
    assert session.state == "failed"
    assert session.reason == f"{site.url}/start: {said}"
    (batch,) = batches(services, session)
    assert [row["url"] for row in rows(services, batch, "pages.log")] == [f"{site.url}/robots.txt", f"{site.url}/start"]


def test_an_unreachable_site_fails_with_a_reason(services: Services) -> None:
    session = crawl(services, "http://127.0.0.1:9/", robots=False)
    assert (session.state, session.reason) == ("failed", "http://127.0.0.1:9/: no answer (unreachable)")


def test_a_private_address_is_never_asked(tmp_path: Path) -> None:
    with Services.open(Settings(data=tmp_path / "data")) as guarded, Site({"/": page()}) as site:
        session = crawl(guarded, f"{site.url}/")
        assert site.asked == []
        assert session.state == "failed"
        assert "address_refused" in str(session.reason)
        (batch,) = batches(guarded, session)
        assert [row["reason"] for row in rows(guarded, batch, "skipped.log")] == ["address_refused"]


def test_odd_answers_are_counted_not_fatal(services: Services) -> None:
    big = Reply(b"\xff\xd8\xff" + bytes(70 << 20), content_type="image/jpeg")
    utf16 = Reply('<meta charset="utf-16"><a href="/utf16-child">on</a>'.encode("utf-16"), content_type="text/html")
    routes = {
        "/": page("/utf16", images=("/big.jpg", "/broken.jpg", "/lie.jpg", "/empty.jpg")),
        "/utf16": utf16,
        "/utf16-child": page(),
        "/big.jpg": big,
        "/broken.jpg": Reply(jpeg()[:200], content_type="image/jpeg"),
        "/lie.jpg": Reply(b"<html>not found", content_type="image/jpeg"),
        "/empty.jpg": Reply(b"", content_type="image/jpeg"),
    }
    with Site(routes) as site:
        session = crawl(services, f"{site.url}/")
    assert session.state == "done"
    (batch,) = batches(services, session)
    found = {row["url"].removeprefix(site.url): (row["outcome"], row["reason"]) for row in rows(services, batch, "images.log")}
    assert found == {
        "/big.jpg": ("refused", "size"),
        "/broken.jpg": ("fetched", ""),
        "/lie.jpg": ("refused", "not_an_image"),
        "/empty.jpg": ("refused", "not_an_image"),
    }
    assert "/utf16-child" in site.paths()


def test_pause_ends_the_cycle_with_its_batch_and_delete_ends_it_without(services: Services) -> None:
    routes: dict[str, Route] = {"/": page(*(f"/{n}" for n in range(50))), **{f"/{n}": page() for n in range(50)}}
    with Site(routes) as one, Site(routes) as other:
        paused = add_session(services, f"{one.url}/", download_delay=0.1)
        deleted = add_session(services, f"{other.url}/", download_delay=0.1)
        with running(services):
            wait_until(lambda: len(one.paths()) > 3 and len(other.paths()) > 3)
            with services.database.write() as tx:
                crawls.pause_session(tx, paused.account_id, paused.id, services.clock.now())
                crawls.delete_session(tx, deleted.account_id, deleted.id, services.clock.now())
            wait_until(lambda: len(batches(services, paused)) == 1)
    assert session_of(services, paused.id).state == "paused"
    assert len(one.paths()) < 40
    assert len(other.paths()) < 40
    assert not list((services.settings.data / "crawler" / "local").glob("*.tar"))


def test_a_cycle_that_ends_right_after_a_closing_keeps_its_pages(services: Services) -> None:
    """The first picture closes its segment at once; when nothing follows, the open WARC segment still has to be stored."""
    with Site({"/": page(images=("/1.jpg",)), "/1.jpg": picture()}) as site:
        session = crawl(services, f"{site.url}/")
    (batch,) = batches(services, session)
    assert session.state == "done"
    assert [row["url"].removeprefix(site.url) for row in rows(services, batch, "pages.log")] == ["/robots.txt", "/"]
