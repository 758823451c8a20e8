from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.robots import MAX_BYTES, MAX_DELAY, Robots, product

AGENT = "filigrane/0.1 (+https://example.org/bot)"
SITE = "https://example.org"


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("User-agent: *\nDisallow: /private", "/private/x", False),
        ("User-agent: *\nDisallow: /private", "/public", True),
        ("User-agent: *\nDisallow: /\nAllow: /open", "/open/x", True),
        ("User-agent: *\nDisallow: /*.jpg$", "/a.jpg", False),
        ("User-agent: *\nDisallow: /*.jpg$", "/a.jpg?x", True),
        ("User-agent: Filigrane\nDisallow: /\n\nUser-agent: *\nDisallow:", "/", False),
        ("User-agent: other\nDisallow: /", "/", True),
        ("\ufeffUser-agent: *\r\nDisallow: /", "/", False),
        ("<html><body>Not found</body></html>", "/", True),
        ("", "/", True),
    ],
)
def test_rules(text: str, path: str, allowed: bool) -> None:
    assert Robots.parse(text.encode()).allowed(SITE + path, AGENT) is allowed


@pytest.mark.parametrize("status", [200, 204, 299])
def test_a_good_answer_is_read(status: int) -> None:
    rules = Robots.from_answer(status, b"User-agent: *\nDisallow: /")
    assert not rules.allowed(f"{SITE}/", AGENT)
    assert (rules.refusal, rules.retry_after) == ("robots", 0)


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 410])
def test_no_robots_txt_allows_everything(status: int) -> None:
    assert Robots.from_answer(status, b"User-agent: *\nDisallow: /").allowed(f"{SITE}/", AGENT)


@pytest.mark.parametrize("status", [429, 500, 503, 599, None])
def test_a_server_in_trouble_is_left_alone_for_a_while(status: int | None) -> None:
    rules = Robots.from_answer(status, b"")
    assert not rules.allowed(f"{SITE}/", AGENT)
    assert rules.retry_after > 0
    assert rules.refusal == "robots unreachable"
    assert rules.crawl_delay(AGENT) is None


@pytest.mark.parametrize(
    ("value", "delay"),
    [("2", 2.0), ("0.5", 0.5), ("0", 0.0), ("1000000000", MAX_DELAY), ("-1", None), ("soon", None), ("", None), ("nan", None)],
)
def test_crawl_delay(value: str, delay: float | None) -> None:
    assert Robots.parse(f"User-agent: *\nCrawl-delay: {value}".encode()).crawl_delay(AGENT) == delay


def test_only_so_much_is_parsed() -> None:
    body = b"User-agent: *\nDisallow: /a\n" + b"# filler\n" * (MAX_BYTES // 9) + b"Disallow: /b\n"
    rules = Robots.parse(body)
    assert not rules.allowed(f"{SITE}/a", AGENT)
    assert rules.allowed(f"{SITE}/b", AGENT)


def test_product() -> None:
    assert product(AGENT) == "filigrane"
    assert product("Mozilla (compatible)") == "Mozilla"


def test_sitemaps_are_listed() -> None:
    assert Robots.parse(b"Sitemap: https://example.org/s.xml").sitemaps == ("https://example.org/s.xml",)


@given(st.binary(max_size=300) | st.text(alphabet="UuserAgnt-:Disalow/*$ \n\r\t%€", max_size=300).map(str.encode))
def test_never_raises(body: bytes) -> None:
    rules = Robots.parse(body)
    assert isinstance(rules.allowed(f"{SITE}/x?y", AGENT), bool)
    delay = rules.crawl_delay(AGENT)
    assert delay is None or 0 <= delay <= MAX_DELAY
