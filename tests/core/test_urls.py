from __future__ import annotations

import pytest
from ada_url import URL
from hypothesis import given
from hypothesis import strategies as st

from core.urls import MAX_LENGTH, host_port, is_address, normalise, origin, registrable_domain

PAGE = "https://www.example.org/a/b.html?q=1"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("c.html", "https://www.example.org/a/c.html"),
        ("/d#part", "https://www.example.org/d"),
        ("//cdn.example.net/x y.jpg", "https://cdn.example.net/x%20y.jpg"),
        ("HTTP://EXAMPLE.org:80", "http://example.org/"),
        ("  ht\ntp://example.org/\t", "http://example.org/"),
        ("http://bücher.example/ä?ö", "http://xn--bcher-kva.example/%C3%A4?%C3%B6"),
        ("http://user:secret@example.org/x", "http://example.org/x"),
        ("http://user@example.org/@home", "http://example.org/@home"),
        ("?page=2", "https://www.example.org/a/b.html?page=2"),
        ("..\\x", "https://www.example.org/x"),
        ("http://[::FFFF:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
    ],
)
def test_reads_as_a_browser_does(url: str, expected: str) -> None:
    assert normalise(url, PAGE) == expected


@pytest.mark.parametrize("host", ["a" * 64, "a" * 64 + ".example", ".".join(["a" * 60] * 5)])
def test_a_host_that_no_name_server_can_know_is_none(host: str) -> None:
    assert normalise(f"http://{host}/") is None
    assert normalise("/x", f"http://{host}/") is None


def test_the_longest_hosts() -> None:
    host = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert normalise(f"http://{host}/") == f"http://{host}/"
    assert len(registrable_domain(f"http://{'a' * 63}:65535/")) <= 255


@pytest.mark.parametrize("host", ["2130706433", "0177.0.0.1", "0x7f.1", "127.1", "①②⑦.⓪.⓪.①", "127.0.0.1.", "127.0.0.1"])
def test_odd_spellings_of_an_address_become_the_address(host: str) -> None:
    url = normalise(f"http://{host}/")
    assert url == "http://127.0.0.1/"
    assert host_port(url) == ("127.0.0.1", 80)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://a@127.0.0.1:80@b/", "b"),
        ("http://b\\@127.0.0.1/", "b"),
        ("http://127.0.0.1#@b/", "127.0.0.1"),
        ("http://127.0.0.1?@b/", "127.0.0.1"),
    ],
)
def test_the_host_that_is_checked_is_the_host_of_the_request(url: str, host: str) -> None:
    normal = normalise(url)
    assert normal is not None
    assert host_port(normal)[0] == host
    assert normalise(normal) == normal


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "mailto:a@b.example",
        "ftp://example.org/",
        "file:///etc/passwd",
        "blob:https://example.org/x",
        "http://",
        "http://a b/",
        "http://a\x00b/",
        "http://example.org:99999/",
        "http://\ud800/",
        "http://example.org/" + "x" * MAX_LENGTH,
        "x" * 1_000_000,
    ],
)
def test_what_cannot_be_crawled_is_none(url: str) -> None:
    assert normalise(url) is None


@given(st.text(max_size=60), st.sampled_from([None, PAGE, "http://127.0.0.1:8000/"]))
def test_a_normal_form_is_stable_and_safe_in_a_request(url: str, base: str | None) -> None:
    normal = normalise(url, base)
    if normal is not None:
        assert normalise(normal) == normal
        assert normal.isascii()
        assert normal.isprintable()
        assert " " not in normal
        assert "#" not in normal
        assert normal.startswith(origin(normal))
        assert registrable_domain(normal)
        host, port = host_port(normal)
        assert host
        assert 0 <= port < 65536


@given(
    st.text(alphabet="/ab.Z09_~-?=&+%é#:@", max_size=20).map("/".__add__),
    st.sampled_from([PAGE, "http://u:p@Example.org:80/x/y?z", "ftp://x/"]),
)
def test_the_short_way_gives_what_the_parser_gives(url: str, base: str) -> None:
    try:
        slow = URL(url, base)
    except ValueError:
        assert normalise(url, base) is None
        return
    slow.username = slow.password = ""
    expected = slow.href.partition("#")[0]
    assert normalise(url, base) == (expected if expected.startswith("http") else None)


@pytest.mark.parametrize(
    ("url", "domain"),
    [
        ("https://www.example.org/a", "example.org"),
        ("https://a.b.example.co.uk/", "example.co.uk"),
        ("https://co.uk/", "co.uk"),
        ("https://me.github.io/x", "me.github.io"),
        ("http://example.org.:8080/", "example.org"),
        ("http://127.0.0.1/", "127.0.0.1:80"),
        ("https://127.0.0.1/", "127.0.0.1:443"),
        ("http://127.0.0.1:8000/x", "127.0.0.1:8000"),
        ("http://[::1]:8000/x", "[::1]:8000"),
        ("http://localhost?x=a/b", "localhost:80"),
        ("Example.ORG", "example.org"),
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://www.xn--bcher-kva.example/", "xn--bcher-kva.example"),
    ],
)
def test_registrable_domain(url: str, domain: str) -> None:
    assert registrable_domain(url) == domain


def test_origin_keeps_a_port_that_is_not_the_default() -> None:
    assert origin("http://example.org:8080?x") == "http://example.org:8080"
    assert host_port("https://[2001:db8::1]/") == ("2001:db8::1", 443)
    assert is_address("2001:db8::1")
    assert not is_address("example.org")
