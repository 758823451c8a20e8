"""What a page refers to: links, images, videos and documents, as a browser would find them. Pure, bounded, never raises."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, Literal

import msgspec
from selectolax.lexbor import LexborHTMLParser, LexborNode

from core.urls import normalise
from crawler.charset import decode

MAX_URLS: Final = 100_000
"""Different URLs of a page that are kept; `surplus` counts the others."""
MAX_RAW: Final = 4096
"""Characters of an attribute that may be a URL; `data:` URLs are longer."""
MAX_ALT: Final = 500
MAX_TAGS: Final = 20_000
"""A page with more is parsed in parts: 20,000 nested elements take half a second, 100,000 take fifteen."""
MAX_PART: Final = 4096
"""Characters of such a part."""

Kind = Literal["link", "image", "video", "document"]

_IMAGES: Final = "jpg jpeg jpe jfif png gif webp avif bmp tif tiff svg ico heic jxl"
_VIDEOS: Final = "mp4 m4v webm mov avi mkv ogv mpg mpeg wmv flv m3u8 mpd 3gp"
_DOCUMENTS: Final = "pdf doc docx xls xlsx ppt pptx odt ods odp rtf epub"
_EXTENSIONS: Final[dict[str, Kind]] = {
    **dict.fromkeys(_IMAGES.split(), "image"),
    **dict.fromkeys(_VIDEOS.split(), "video"),
    **dict.fromkeys(_DOCUMENTS.split(), "document"),
}
_NO_IMAGES: Final = frozenset(["woff", "woff2", "ttf", "otf", "eot", "css", "js", "htm", "html", "php", "json", "xml"])
"""Behind url(...) in a style, or in a lazy attribute of something that is no image."""
_LAZY: Final = (
    "data-src", "data-original", "data-lazy-src", "data-lazy", "data-bg", "data-background", "data-background-image", "data-image",
    "data-full", "data-large_image", "data-zoom-image", "data-hires", "data-echo", "data-url",
)  # fmt: skip
_LAZY_SETS: Final = ("data-srcset", "data-lazy-srcset", "data-bgset", "data-original-set")
_EVERYWHERE: Final = frozenset({"style", "background", *_LAZY, *_LAZY_SETS})
"""Attributes that any element may have and that may name images."""
_CSS_URL: Final = re.compile(r"""url\(\s{0,20}(?:"([^"]{0,4096})"|'([^']{0,4096})'|([^)("'\s]{1,4096}))""", re.IGNORECASE)
_MANY_ATTRIBUTES: Final = re.compile(
    r"""<[a-z][^\s/>]*+(?:[\s/]*+[^\s/>][^\s/>=]*+(?:\s*+=\s*+(?:"[^"]*+"|'[^']*+'|[^\s>]*+))?+){2000}""", re.IGNORECASE
)
_HIDDEN: Final = re.compile(r"<script\b|<!--", re.IGNORECASE)
_HIDDEN_END: Final = {
    "<s": re.compile(r"</script\s*>", re.IGNORECASE),
    "<S": re.compile(r"</script\s*>", re.IGNORECASE),
    "<!": re.compile("-->"),
}
_REFRESH: Final = re.compile(r"^\s{0,20}[\d.]{1,10}\s{0,20}[;,]?\s{0,20}(?:url\s{0,20}=\s{0,20})?[\"']?([^\"']{1,4096})", re.IGNORECASE)
_SPACE: Final = " \t\n\r\f"
_META_IMAGES: Final = frozenset(
    {"og:image", "og:image:url", "og:image:secure_url", "twitter:image", "twitter:image:src", "msapplication-tileimage"}
)
_REL_LINKS: Final = frozenset(
    {"next", "prev", "canonical", "amphtml", "index", "contents", "start", "first", "last", "up", "home", "search", "help"}
)
_REL_IMAGES: Final = frozenset({"icon", "image_src", "apple-touch-icon", "apple-touch-icon-precomposed", "mask-icon"})


class Extracted(msgspec.Struct, frozen=True):
    """URLs are normalised, different, and in the order in which they come."""

    base: str
    links: tuple[str, ...] = ()
    images: tuple[tuple[str, str], ...] = ()
    """(URL, alt)"""
    videos: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    nofollow: bool = False
    """The page asks robots not to follow its links."""
    encoding: str = ""
    surplus: int = 0
    """URLs beyond MAX_URLS that were left out."""

    @classmethod
    def nothing(cls) -> Extracted:
        return cls("")


def extract(body: bytes, content_type: str, url: str) -> Extracted:
    """What an HTML or XHTML page refers to.

    Args:
        body: decoded (no Content-Encoding), cut anywhere.
        content_type: the whole Content-Type header.
        url: of the page, normalised.
    """
    text, encoding = decode(body, content_type)
    page: _Page | None = None
    for part in _parts(text):
        tree = LexborHTMLParser(part)
        if page is None:
            page = _Page(_base(tree, url))
        if tree.root is not None:
            for node in tree.root.traverse(include_text=False):
                page.look(node)
    assert page is not None
    return Extracted(
        page.base,
        tuple(page.found["link"]),
        tuple(page.found["image"].items()),
        tuple(page.found["video"]),
        tuple(page.found["document"]),
        page.nofollow,
        encoding,
        page.surplus,
    )


def _parts(text: str) -> Iterator[str]:
    """The whole text; in small parts when its depth or the attributes of an element could make the parser's time grow with their square."""
    if len(text) <= MAX_PART or (text.count("<") <= MAX_TAGS and not _MANY_ATTRIBUTES.search(text)):
        yield text
        return
    text = _without_scripts(text)
    at = 0
    while at < len(text) or at == 0:
        cut = text.rfind("<", at + 1, at + MAX_PART) if at + MAX_PART < len(text) else -1
        end = cut if cut > 0 else at + MAX_PART
        yield text[at:end]
        at = end


def _without_scripts(text: str) -> str:
    """Scripts and comments left out, since a cut within one would show its text as elements."""
    kept: list[str] = []
    at = 0
    while found := _HIDDEN.search(text, at):
        kept.append(text[at : found.start()])
        end = _HIDDEN_END[found[0][:2]].search(text, found.end())
        if end is None:
            return "".join(kept)
        at = end.end()
    return "".join([*kept, text[at:]])


def _base(tree: LexborHTMLParser, url: str) -> str:
    node = tree.css_first("base[href]")
    return (normalise(node.attributes.get("href") or "", url) if node is not None else None) or url


def srcset(value: str) -> Iterator[str]:
    """The URLs of a srcset's candidates (HTML standard, 4.8.4.3.10); descriptors are dropped."""
    at, end = 0, len(value)
    while True:
        while at < end and (value[at] in _SPACE or value[at] == ","):
            at += 1
        if at >= end:
            return
        start = at
        while at < end and value[at] not in _SPACE:
            at += 1
        candidate = value[start:at]
        if candidate.endswith(","):
            yield candidate.rstrip(",")
            continue
        yield candidate
        at = _after_descriptors(value, at)


def _after_descriptors(value: str, at: int) -> int:
    """The place of the comma that ends a candidate's descriptors; commas in parentheses do not."""
    depth = 0
    while at < len(value):
        character = value[at]
        if character == "(":
            depth += 1
        elif character == ")":
            depth = max(depth - 1, 0)
        elif character == "," and depth == 0:
            return at
        at += 1
    return at


def kind_of(url: str) -> Kind | None:
    """What a normalised URL's extension says; None if it says nothing. `/wiki/File:a.jpg` is a page."""
    name = url.partition("?")[0].rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return _EXTENSIONS.get(extension.lower()) if dot and ":" not in stem and len(extension) < 6 else None


class _Page:
    """Collects what the nodes of one page refer to."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.found: dict[Kind, dict[str, str]] = {"link": {}, "image": {}, "video": {}, "document": {}}
        self.nofollow = False
        self.surplus = 0
        self._count = 0
        self._seen: dict[str, str | None] = {}
        self._handlers: dict[str, Callable[[dict[str, str | None], LexborNode], None]] = {
            "a": self._a, "area": self._a, "link": self._link, "meta": self._meta, "iframe": self._frame, "frame": self._frame,
            "img": self._img, "source": self._source, "video": self._video, "input": self._input, "image": self._svg_image,
            "object": self._embedded, "embed": self._embedded, "style": self._style,
        }  # fmt: skip

    def look(self, node: LexborNode) -> None:
        tag, attributes = node.tag or "", node.attributes
        handler = self._handlers.get(tag)
        if handler is not None:
            handler(attributes, node)
        if not _EVERYWHERE.isdisjoint(attributes):
            self._any(tag, attributes)

    def _add(self, kind: Kind | None, raw: str | None, alt: str = "", *, by_extension: bool = False) -> None:
        """Files a raw URL; with `by_extension` the extension may say better than `kind` what it is."""
        if not raw or len(raw) > MAX_RAW:
            return
        key = raw if not by_extension else "\0" + raw
        if key in self._seen and kind == "link":
            return
        url = self._seen[key] if key in self._seen else self._resolve(key, raw)
        if url is None:
            return
        actual = (kind_of(url) or kind) if by_extension else kind
        if actual is None:
            return
        known = self.found[actual]
        if url in known:
            known[url] = known[url] or alt
        elif self._count >= MAX_URLS:
            self.surplus += 1
        else:
            self._count += 1
            known[url] = alt

    def _resolve(self, key: str, raw: str) -> str | None:
        url = self._seen[key] = None if raw[:5].lower() == "data:" or raw[0] == "#" else normalise(raw, self.base)
        return url

    def _add_set(self, value: str | None, alt: str = "") -> None:
        for raw in srcset(value or ""):
            self._add("image", raw, alt)

    def _add_css(self, text: str) -> None:
        for found in _CSS_URL.finditer(text):
            raw = (found[1] or found[2] or found[3] or "").strip()
            if _extension(raw) not in _NO_IMAGES:
                self._add("image", raw)

    # --- elements

    def _a(self, attributes: dict[str, str | None], node: LexborNode) -> None:
        self._add("link", attributes.get("href"), by_extension=True)

    def _link(self, attributes: dict[str, str | None], node: LexborNode) -> None:
        rels = set((attributes.get("rel") or "").lower().split())
        if rels & _REL_LINKS and "xml" not in (attributes.get("type") or "").replace("xhtml+xml", "").lower():
            self._add("link", attributes.get("href"))  # a search that is described in XML is no page
        elif rels & _REL_IMAGES or ("preload" in rels and attributes.get("as") == "image"):
            self._add("image", attributes.get("href"))
            self._add_set(attributes.get("imagesrcset"))

    def _meta(self, attributes: dict[str, str | None], node: LexborNode) -> None:
        name = (attributes.get("property") or attributes.get("name") or attributes.get("itemprop") or "").lower()
        content = attributes.get("content") or ""
        if name in _META_IMAGES:
            self._add("image", content.strip())
        elif name == "robots":
            self.nofollow = self.nofollow or bool({"nofollow", "none"} & set(re.split(r"[\s,]+", content[:1000].lower())))
        elif (attributes.get("http-equiv") or "").lower() == "refresh" and (found := _REFRESH.match(content[: 2 * MAX_RAW])):
            self._add("link", found[1].strip())

    def _frame(self, attributes: dict[str, str | None], node: LexborNode) -> None:
        self._add("link", attributes.get("src") or attributes.get("data-src"))

    def _img(self, attributes: dict[str, str | None], node: LexborNode) -> None:
        alt = _alt(attributes)
        self._add("image", attributes.get("src"), alt)
        self._add_set(attributes.get("srcset"), alt)

    def _source(self, attributes: dict[str, str | None], node: LexborNode) -> None:
        self._add_set(attributes.get("srcset"))
        parent = node.parent.tag if node.parent is not None else ""
        if parent == "video" or (attributes.get("type") or "").startswith("video/"):
            self._add("video", attributes.get("src"))

    def _video(self, attributes: dict[str, str | None], node: LexborNode) -> None:
        self._add("image", attributes.get("poster"))
        self._add("video", attributes.get("src"))

    def _input(self, attributes: dict[str, str | None], node: LexborNode) -> None:
        if (attributes.get("type") or "").lower() == "image":
            self._add("image", attributes.get("src"), _alt(attributes))

    def _svg_image(self, attributes: dict[str, str | None], node: LexborNode) -> None:
        self._add("image", attributes.get("href") or attributes.get("xlink:href"))

    def _embedded(self, attributes: dict[str, str | None], node: LexborNode) -> None:
        family, _, subtype = (attributes.get("type") or "").lower().partition("/")
        kind: Kind | None = "image" if family == "image" else "video" if family == "video" else "document" if subtype == "pdf" else None
        self._add(
            kind or ("link" if subtype == "html" else None), attributes.get("data") or attributes.get("src"), by_extension=kind is None
        )

    def _style(self, attributes: dict[str, str | None], node: LexborNode) -> None:
        self._add_css(node.text(deep=True))

    def _any(self, tag: str, attributes: dict[str, str | None]) -> None:
        """What every element may have: a background, and what scripts turn into images when they come into view."""
        style = attributes.get("style")
        if style and "url(" in style.lower():
            self._add_css(style)
        self._add("image", attributes.get("background"))
        if tag in ("script", "iframe", "video", "audio", "a", "meta", "link"):
            return
        alt = _alt(attributes)
        for name, value in attributes.items():
            if name in _LAZY_SETS:
                self._add_set(value, alt)
            elif name in _LAZY and value:
                self._lazy(tag, value.strip(), alt)

    def _lazy(self, tag: str, value: str, alt: str) -> None:
        if "url(" in value:
            self._add_css(value)
        elif tag == "img" or kind_of(value) == "image" or ("/" in value and value.isprintable() and _extension(value) not in _NO_IMAGES):
            self._add("image", value, alt)


def _alt(attributes: dict[str, str | None]) -> str:
    return " ".join((attributes.get("alt") or "")[: 2 * MAX_ALT].split())[:MAX_ALT]


def _extension(raw: str) -> str:
    return raw[:MAX_RAW].partition("?")[0].partition("#")[0].rpartition("/")[2].rpartition(".")[2].lower()
