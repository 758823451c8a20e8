from __future__ import annotations

import hashlib
import http.client
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from protego import Protego
from selectolax.lexbor import LexborHTMLParser

import filigrane
from filigrane.demo.alterations import ALTERATIONS
from filigrane.demo.pictures import DECOYS, ORIGINALS, WATERMARKED
from filigrane.demo.site import Decoy, Place, Plan, Planted, Served, build, serve, watermark

ADDRESS_IN_STYLE = re.compile(r"url\(['\"]?([^'\")]+)")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return build(tmp_path_factory.mktemp("demo"), mark=watermark)


@pytest.fixture(scope="module")
def served(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(plan, tmp_path_factory.mktemp("log") / "requests.jsonl") as served:
        yield served


def pictures(plan: Plan) -> list[Planted | Decoy]:
    return [*plan.planted, *plan.decoys]


class Client:
    """One keep-alive connection per host."""

    def __init__(self) -> None:
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def get(self, url: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[int, bytes, http.client.HTTPMessage]:
        parts = urlsplit(url)
        connection = self._connections.setdefault(parts.netloc, http.client.HTTPConnection(parts.netloc, timeout=20))
        connection.request(method, parts.path or "/", headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    client.close()


def links_and_images(url: str, body: bytes) -> tuple[set[str], set[str]]:
    """Absolute addresses of a page's links and pictures, in all the ways in which the demo's pages show one."""
    tree = LexborHTMLParser(body.decode())
    links = {node.attributes["href"] or "" for node in tree.css("a[href]")}
    images = {node.attributes[name] or "" for name in ("src", "data-src") for node in tree.css(f"img[{name}]")}
    images |= {(entry.split() or [""])[0] for node in tree.css("[srcset]") for entry in (node.attributes["srcset"] or "").split(",")}
    images |= {node.attributes["content"] or "" for node in tree.css("meta[property='og:image']")}
    images |= set(ADDRESS_IN_STYLE.findall(body.decode()))
    return {urljoin(url, link) for link in links}, {urljoin(url, image) for image in images if not image.startswith("data:")}


def crawl(served: Served, client: Client, site: str) -> tuple[dict[str, bytes], dict[Place, set[Place]]]:
    """What a polite crawler sees of a site: its pages, and which pictures are shown where."""
    base = served.urls[site]
    robots = Protego.parse(client.get(f"{base}/robots.txt")[1].decode())
    todo, pages, shown = [f"{base}/"], dict[str, bytes](), dict[Place, set[Place]]()
    asked = set(todo)
    while todo:
        url = todo.pop()
        status, body, headers = client.get(url)
        new = {headers["Location"]} if status == 302 else set()
        if status == 200:
            pages[url] = body
            new, images = links_and_images(url, body)
            for image in images:
                place, page = served.place(image), served.place(url)
                assert place is not None
                assert page is not None
                shown.setdefault(place, set()).add(page)
        todo += [link for link in new if link.startswith(base) and link not in asked and robots.can_fetch(link, "filigrane")]
        asked |= new
    return pages, shown


@pytest.fixture(scope="module")
def seen(served: Served) -> dict[Place, set[Place]]:
    """Picture -> pages, over all sites."""
    client = Client()
    seen: dict[Place, set[Place]] = {}
    for site in served.plan.sites:
        for image, pages in crawl(served, client, site)[1].items():
            seen.setdefault(image, set()).update(pages)
    client.close()
    return seen


def test_size_of_the_web(plan: Plan) -> None:
    assert 12 <= len(plan.originals) <= 18
    assert len(plan.planted) >= 40
    assert len(plan.decoys) >= 10
    assert {planted.original for planted in plan.planted} == set(ORIGINALS), "every picture was taken at least once"
    assert {decoy.what for decoy in plan.decoys} == set(DECOYS)


def test_each_site_has_pages_enough(served: Served, client: Client) -> None:
    for site in served.plan.sites:
        pages, _ = crawl(served, client, site)
        assert 10 <= len(pages) <= 16


def test_planted_copies_and_decoys_are_where_the_plan_says(plan: Plan, seen: dict[Place, set[Place]]) -> None:
    expected = {shown.file: set(shown.pages) for shown in pictures(plan)}
    odd = {*plan.broken, *plan.missing, *plan.forbidden}
    assert {image: pages for image, pages in seen.items() if image not in odd} == expected


def test_every_planted_file_is_a_picture_of_its_own(plan: Plan, served: Served, client: Client) -> None:
    digests = set()
    for file in (shown.file for shown in pictures(plan)):
        status, body, headers = client.get(served.url(file))
        assert status == 200
        assert headers["Content-Type"].startswith("image/")
        with Image.open(io.BytesIO(body)) as image:
            image.load()
            assert min(image.size) >= 200
        digests.add(hashlib.sha256(body).digest())
    assert len(digests) == len(pictures(plan))


def test_watermarked_originals_are_shown_only_marked(plan: Plan) -> None:
    assert {original.name for original in plan.originals if original.watermarked} == WATERMARKED
    assert {planted.original for planted in plan.planted if planted.watermarked} == WATERMARKED
    registrations = {original.name: original.registration for original in plan.originals if original.registration}
    smallest = {planted.original: planted for planted in plan.planted if planted.alteration == "resized to 320"}
    for name, planted in smallest.items():
        if name in registrations:
            registration = filigrane.Registration.from_bytes(registrations[name].read_bytes())
            with Image.open(plan.folder / planted.file.site / planted.file.path[1:]) as image:
                assert filigrane.detect(np.asarray(image.convert("RGB")), registration).marked, name


def test_built_again_it_is_the_same_but_for_the_marks(plan: Plan, tmp_path: Path) -> None:
    again = build(tmp_path)
    assert not any(original.watermarked for original in again.originals)
    assert not any(planted.watermarked for planted in again.planted)
    with_marks = {planted.file for planted in plan.planted if planted.watermarked} | set(plan.forbidden)
    for file in (file for file in plan.folder.rglob("*") if file.is_file()):
        site, *path = file.relative_to(plan.folder).parts
        if Place(site, "/" + "/".join(path)) not in with_marks:
            assert file.read_bytes() == again.folder.joinpath(site, *path).read_bytes(), file


def test_robots_forbid_what_the_plan_calls_forbidden(plan: Plan, served: Served, client: Client, seen: dict[Place, set[Place]]) -> None:
    assert plan.forbidden
    for place in plan.forbidden:
        robots = Protego.parse(client.get(f"{served.urls[place.site]}/robots.txt")[1].decode())
        assert not robots.can_fetch(served.url(place), "filigrane")
        assert client.get(served.url(place))[0] == 200, "only manners keep it from being fetched"
    assert set(plan.forbidden) & set(seen), "one is shown on a page that is allowed"


def test_broken_and_missing(plan: Plan, served: Served, client: Client, seen: dict[Place, set[Place]]) -> None:
    for place in plan.missing:
        assert client.get(served.url(place))[0] == 404
    for place in plan.broken:
        assert place in seen
        with pytest.raises((UnidentifiedImageError, OSError)), Image.open(io.BytesIO(client.get(served.url(place))[1])) as image:
            image.load()


def test_redirects(plan: Plan, served: Served, client: Client) -> None:
    for source, target in plan.redirects.items():
        status, _, headers = client.get(served.url(source))
        assert (status, headers["Location"]) == (302, served.url(target))


def test_conditional_request_and_head(plan: Plan, served: Served, client: Client) -> None:
    url = served.url(plan.planted[0].file)
    _, body, headers = client.get(url)
    assert client.get(url, {"If-None-Match": headers["ETag"]})[:2] == (304, b"")
    status, nothing, of_head = client.get(url, method="HEAD")
    assert (status, nothing, of_head["Content-Length"]) == (200, b"", str(len(body)))


@pytest.mark.parametrize(
    "path", ["/../../originals/astronaut.png", "/%2e%2e/%2e%2e/originals/astronaut.png", "/images", "/images/", "/%00", "/index.html"]
)
def test_nothing_else_is_served(served: Served, path: str) -> None:
    parts = urlsplit(served.urls["news"])
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    connection.request("GET", path)
    assert connection.getresponse().status == 404
    connection.close()


def test_requests_are_noted_with_their_time(served: Served, client: Client, tmp_path: Path) -> None:
    with serve(served.plan, tmp_path / "log") as other:
        begin = time.monotonic()
        client.get(other.urls["blog"] + "/", {"User-Agent": "test"})
        client.get(other.urls["images"] + "/nothing")
        while len(other.requests) < 2:
            time.sleep(0.001)
        noted = other.requests
    assert [(request.host, request.path, request.status) for request in noted] == [("blog", "/", 200), ("images", "/nothing", 404)]
    assert noted[0].user_agent == "test"
    assert begin <= noted[0].at <= noted[1].at <= time.monotonic()
    logged = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["path"] for line in sorted(logged, key=lambda line: line["at"])] == ["/", "/nothing"]  # written as each ends


def test_alterations_change_the_file_and_not_the_array() -> None:
    picture = ORIGINALS["cat"]()
    before = picture.copy()
    files = {name: alteration.apply(picture) for name, alteration in ALTERATIONS.items()}
    assert len(set(files.values())) == len(ALTERATIONS)
    assert files == {name: alteration.apply(picture) for name, alteration in ALTERATIONS.items()}
    assert np.array_equal(picture, before)


def test_same_colors_are_the_same_colors() -> None:
    coffee, twin = ORIGINALS["coffee"](), DECOYS["the colours of the coffee"]()
    assert np.array_equal(np.sort(coffee.reshape(-1, 3), axis=0), np.sort(twin.reshape(-1, 3), axis=0))
    assert not np.array_equal(coffee, twin)
