from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.extract import MAX_URLS, Extracted, extract, kind_of, srcset

URL = "http://example.org/a/page.html"
HTML = "text/html; charset=utf-8"


def page(html: str, url: str = URL) -> Extracted:
    return extract(html.encode(), HTML, url)


def images(html: str) -> list[str]:
    return [url for url, _ in page(html).images]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<a href="b.html#x">b</a><a href="b.html">again</a>', ["http://example.org/a/b.html"]),
        ('<area href="/m">', ["http://example.org/m"]),
        ('<base href="//cdn.example/x/"><a href="y">', ["http://cdn.example/x/y"]),
        ('<base href="data:x"><a href="y">', ["http://example.org/a/y"]),
        ('<iframe src="/f"></iframe>', ["http://example.org/f"]),
        ('<link rel="next prefetch" href="?p=2">', ["http://example.org/a/page.html?p=2"]),
        ('<link rel="stylesheet" href="s.css">', []),
        ('<link rel="index" href="/genindex.html">', ["http://example.org/genindex.html"]),
        ('<link rel=search type="application/opensearchdescription+xml" href="/s.xml"><link rel=search href=/s>', ["http://example.org/s"]),
        ('<link rel=up type="application/xhtml+xml" href="/u">', ["http://example.org/u"]),
        ('<meta http-equiv="Refresh" content="5; URL=\'/new\'">', ["http://example.org/new"]),
        ('<a href="javascript:x()"><a href="mailto:a@b.c"><a href="#top"><a href=""><a>', []),
        ('<a href=" /sp\nace ">', ["http://example.org/space"]),
        ("<noscript><a href=/n>n</a></noscript>", ["http://example.org/n"]),
        ("<script>'<a href=/js>'</script><!-- <a href=/comment> --><textarea><a href=/t></textarea>", []),
        ('<a href="/wiki/File:Cat.jpg">', ["http://example.org/wiki/File:Cat.jpg"]),
    ],
)
def test_links(html: str, expected: list[str]) -> None:
    assert list(page(html).links) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<img src="1.jpg">', ["1.jpg"]),
        ('<img src="data:image/gif;base64,AAAA" data-src="1.jpg">', ["1.jpg"]),
        ('<img src="1.jpg" srcset="2.jpg 2x, 3.jpg 3x">', ["1.jpg", "2.jpg", "3.jpg"]),
        ('<picture><source srcset="1.avif 100w, 2.avif 200w"><img src="3.jpg"></picture>', ["1.avif", "2.avif", "3.jpg"]),
        ('<img data-srcset="1.jpg 1x,2.jpg 2x" data-lazy-src=3.jpg>', ["1.jpg", "2.jpg", "3.jpg"]),
        ("<noscript><img src=1.jpg></noscript>", ["1.jpg"]),
        ("<div style=\"background: url('1.jpg') no-repeat, url( 2.png )\">", ["1.jpg", "2.png"]),
        ("<style>a{background:url(1.jpg)} @font-face{src:url(f.woff2?x)} b{c:url(data:x)}</style>", ["1.jpg"]),
        ("<div data-bg=\"url('1.jpg')\"></div><div data-bg=2.webp></div><div data-image=true></div>", ["1.jpg", "2.webp"]),
        ('<meta property="og:image" content="1.jpg"><meta name="twitter:image" content="2.jpg">', ["1.jpg", "2.jpg"]),
        ('<link rel="image_src" href="1.jpg"><link rel="shortcut icon" href="2.ico">', ["1.jpg", "2.ico"]),
        ('<link rel=preload as=image href=1.jpg imagesrcset="2.jpg 2x">', ["1.jpg", "2.jpg"]),
        ("<input type=IMAGE src=1.png><input src=2.png>", ["1.png"]),
        ("<video poster=1.jpg></video>", ["1.jpg"]),
        ('<svg><image href="1.jpg"/><image xlink:href="2.jpg"/></svg>', ["1.jpg", "2.jpg"]),
        ('<object data="1.svg" type="image/svg+xml"></object><embed src="2.png">', ["1.svg", "2.png"]),
        ('<a href="1.JPG?w=1"><img src="1.JPG?w=1"></a>', ["1.JPG?w=1"]),
        ("<body background=1.gif>", ["1.gif"]),
        ('<iframe data-src="/x.jpg"></iframe><script data-src="/y/z"></script>', []),
    ],
)
def test_images(html: str, expected: list[str]) -> None:
    assert images(html) == [f"http://example.org/a/{name}" for name in expected]


def test_the_alternative_text_is_the_first_that_says_something() -> None:
    found = page('<a href=1.jpg></a><img src=1.jpg alt=""><img src=1.jpg alt=" A\n cat "><img src=1.jpg alt="B">')
    assert found.images == (("http://example.org/a/1.jpg", "A cat"),)


def test_videos_and_documents() -> None:
    found = page(
        '<video src=1.mp4><source src=2 type="video/webm"></video><a href=3.mov></a><a href=4.pdf></a><a href=5.DOCX></a><audio src=6.mp3>'
    )
    assert [url.rpartition("/")[2] for url in found.videos] == ["1.mp4", "2", "3.mov"]
    assert [url.rpartition("/")[2] for url in found.documents] == ["4.pdf", "5.DOCX"]


@pytest.mark.parametrize(("content", "nofollow"), [("noindex, NOFOLLOW", True), ("none", True), ("noindex", False), ("follow", False)])
def test_nofollow(content: str, nofollow: bool) -> None:
    assert page(f'<meta name="robots" content="{content}"><a href=x>').nofollow is nofollow


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.jpg", ["a.jpg"]),
        ("a.jpg 1x,b.jpg 2x", ["a.jpg", "b.jpg"]),
        ("a.jpg, b.jpg", ["a.jpg", "b.jpg"]),
        ("a,b.jpg 100w, c.jpg", ["a,b.jpg", "c.jpg"]),
        (" ,, a.jpg (x,y) 2x , b.jpg", ["a.jpg", "b.jpg"]),
        ("data:image/gif;base64,AA 1x, b.jpg 2x", ["data:image/gif;base64,AA", "b.jpg"]),
        ("a.jpg,", ["a.jpg"]),
        ("", []),
    ],
)
def test_srcset(value: str, expected: list[str]) -> None:
    assert list(srcset(value)) == expected


@pytest.mark.parametrize(
    ("body", "content_type", "encoding"),
    [
        ("<a href='é'>".encode(), "text/html", "utf-8"),
        ("<a href='é'>".encode("cp1252"), "text/html", "cp1252"),
        ("<a href='é'>".encode("cp1252"), "text/html; charset=ISO-8859-1", "cp1252"),
        (b"<meta charset=windows-1252>" + "<a href='é'>".encode("cp1252"), "text/html", "cp1252"),
        ("<meta charset=utf-16><a href='é'>".encode(), "text/html", "utf-8"),
        (b"\xef\xbb\xbf" + "<a href='é'>".encode(), "text/html; charset=latin1", "utf-8"),
        (b"\xff\xfe" + "<a href='é'>".encode("utf-16-le"), "text/html", "utf-16-le"),
        (b"\xfe\xff" + "<a href='é'>".encode("utf-16-be"), "text/html", "utf-16-be"),
        ("<html><a href='é'>".encode("utf-16-le"), "text/html", "utf-16-le"),
        ("<html><a href='é'>".encode("utf-16-be"), "text/html", "utf-16-be"),
        ("<a href='é'>".encode("utf-16-le"), "text/html; charset=utf-16", "utf-16-le"),
        ("<a href='é'>".encode(), "text/html; charset=utf-7", "utf-8"),
        ("<a href='é'>".encode(), "text/html; charset=hex", "utf-8"),
        ("<a href='é'>".encode(), "text/html; charset=\x00", "utf-8"),
    ],
)
def test_encodings(body: bytes, content_type: str, encoding: str) -> None:
    found = extract(body, content_type, URL)
    assert found.encoding == encoding
    assert found.links == ("http://example.org/a/%C3%A9",)


def test_east_asian_encodings() -> None:
    for name in ("shift_jis", "euc-jp", "gb18030", "big5", "euc-kr"):
        html = f"<meta charset={name}><img src=1.jpg alt='中日'>".encode(name)
        assert extract(html, "text/html", URL).images == (("http://example.org/a/1.jpg", "中日"),)


def test_a_page_that_was_cut_within_a_character_is_still_utf8() -> None:
    assert extract("<a href=x>é".encode()[:-1], "text/html", URL).encoding == "utf-8"


def test_xhtml() -> None:
    body = b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body><a href="x"/><img src="1.jpg"/></body></html>'
    found = extract(body, "application/xhtml+xml", URL)
    assert found.links == ("http://example.org/a/x",)
    assert len(found.images) == 1


@pytest.mark.parametrize(
    "html",
    [
        "<a href='data:" + "A" * 2_000_000 + "'>",
        "<style>" + "url(" * 200_000,
        "<style>" + "url('" * 200_000,
        "<img srcset='" + "," * 1_000_000 + "'>",
        "<img srcset='a " + "(" * 1_000_000 + "'>",
        "<div>" * 100_000,
        "<div></x>" * 100_000,
        "<a href=x><b>" * 100_000,
        "<div " + "".join(f"x{n} " for n in range(100_000)) + ">",
        "<div " + "".join(f"x{n}='>' " for n in range(100_000)) + ">",
        "<a x='" * 200_000,
        "<script><a href=x>" * 50_000,
        "<!--" * 200_000,
        "<meta " * 100_000,
    ],
)
def test_hostile_pages_end(html: str) -> None:
    page(html)


def test_a_page_too_big_for_one_tree_shows_the_same() -> None:
    html = (
        "<base href=/b/><p>"
        + "<script>'<a href=no>'</script><!-- <a href=no> --><a href=x></a><img src=1.jpg alt=A>" * 6_000
        + "<a href=y>"
    )
    found = page(html)
    assert found.links == ("http://example.org/b/x", "http://example.org/b/y")
    assert found.images == (("http://example.org/b/1.jpg", "A"),)


def test_urls_beyond_the_limit_are_counted() -> None:
    found = page("".join(f"<a href=/{n}>" + "</a>" for n in range(MAX_URLS + 5)))
    assert (len(found.links), found.surplus) == (MAX_URLS, 5)


def test_kind_of() -> None:
    assert kind_of("http://example.org/a.b/c") is None
    assert kind_of("http://example.org/c.PNG?x=.pdf") == "image"


@given(st.binary(max_size=400), st.text(max_size=40))
def test_never_raises_on_bytes(body: bytes, content_type: str) -> None:
    extract(body, content_type, URL)


_PIECES = (
    "<a href= <img src= srcset= data-src= style= url( ' \" > / <style> </style> <base href= <meta content= name=robots http-equiv=refresh "
    "http:// // # ? \x00 \ud7ff , 1x data: <svg> <image <!-- --> <noscript> <template> 0;url= é [ ] @"
)
_PARTS = st.sampled_from(_PIECES.split())


@given(st.lists(_PARTS | st.text(max_size=3), max_size=40))
def test_what_is_found_is_normal_and_different(parts: list[str]) -> None:
    found = extract(" ".join(parts).encode("utf-8", "replace"), HTML, URL)
    for urls in (found.links, [url for url, _ in found.images], found.videos, found.documents):
        assert len(set(urls)) == len(urls)
        assert all(url.startswith(("http://", "https://")) and url.isascii() for url in urls)
