"""The HTML of the demo's sites, and which picture each page shows. Hosts are named `demo://host`; the server knows their addresses."""

from __future__ import annotations

import html
import posixpath
from pathlib import Path
from string import Template
from typing import Final

from filigrane.demo import content
from filigrane.demo.content import SHOTS, Figure, How, Page, Shot, Site
from filigrane.demo.plan import Place

Shown = dict[Place, set[Place]]
"""File -> pages that show it."""

_STATIC: Final = Path(__file__).parent / "static"
_CAPTION: Final = "<figcaption>{alt}</figcaption></figure>"
_BLANK: Final = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
_FIGURES: Final[dict[How, str]] = {
    "img": '<figure><img src="{first}" alt="{alt}">' + _CAPTION,
    "lazy": f'<figure><img src="{_BLANK}" data-src="{{first}}" loading="lazy" alt="{{alt}}">{_CAPTION}',
    "srcset": '<figure><img src="{first}" srcset="{sizes}" sizes="(max-width: 44em) 100vw, 40em" alt="{alt}">' + _CAPTION,
    "picture": '<figure><picture><source srcset="{first}" type="image/webp"><img src="{last}" alt="{alt}"></picture>' + _CAPTION,
    "background": """<div class="banner" role="img" aria-label="{alt}" style="background-image: url('{first}')"></div>""",
    "style": '<div class="banner" role="img" aria-label="{alt}"></div>',
}


def place_of(shot: Shot) -> Place:
    return Place(shot.host, shot.path)


def write(file: Path, data: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def write_site(web: Path, site: Site, shown: Shown) -> None:
    """Pages, style sheet and robots.txt of a site; adds to `shown`."""
    folder = web / site.host
    template = Template((_STATIC / "page.html").read_text())
    for page in site.pages:
        path = page.path + ("index.html" if page.path.endswith("/") else "")
        write(folder / path[1:], _Renderer(site, page, shown).page(template).encode())
    write(folder / "style.css", Template((_STATIC / "style.css").read_text()).substitute(accent=site.accent).encode())
    rules = "".join(f"Disallow: {prefix}\n" for prefix in site.disallow) or "Allow: /\n"
    write(folder / "robots.txt", f"User-agent: *\n{rules}".encode())


class _Renderer:
    """One page's HTML; notes which pictures it shows."""

    def __init__(self, site: Site, page: Page, shown: Shown) -> None:
        self._site = site
        self._page = page
        self._shown = shown

    def page(self, template: Template) -> str:
        page, site = self._page, self._site
        in_head = [figure for figure in page.figures if figure.how in ("og", "style")]
        in_body = [figure for figure in page.figures if figure.how != "og"]
        return template.substitute(
            site=html.escape(site.title),
            motto=html.escape(site.motto),
            title=html.escape(page.title),
            head="\n".join(self._head(figure) for figure in in_head),
            navigation="\n".join(_link(*entry) for entry in site.navigation),
            text="\n".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in page.text),
            figures="\n".join(self._figure(figure) for figure in in_body) + self._odd_ones(),
            cards="\n".join(self._card(path) for path in page.cards),
            links="\n".join(f"<li>{_link(*link)}</li>" for link in page.links),
        )

    def _head(self, figure: Figure) -> str:
        if figure.how == "og":
            shot = SHOTS[figure.shots[0]]
            self._address(shot)
            return f'<meta property="og:image" content="demo://{shot.host}{shot.path}">'
        return f"<style>.banner {{ background-image: url({self._address(SHOTS[figure.shots[0]])}) }}</style>"

    def _figure(self, figure: Figure) -> str:
        addresses = [self._address(SHOTS[name]) for name in figure.shots]
        sizes = [f"{address} {SHOTS[name].alteration.split()[-1]}w" for address, name in zip(addresses, figure.shots, strict=True)]
        return _FIGURES[figure.how].format(first=addresses[0], last=addresses[-1], sizes=", ".join(sizes), alt=html.escape(figure.alt))

    def _card(self, path: str) -> str:
        page = next(page for page in self._site.pages if page.path == path)
        picture = f'<img src="{self._address(SHOTS[page.thumb])}" alt="{html.escape(page.title)}">' if page.thumb else ""
        return (
            f'<a class="card" href="{path}">{picture}<strong>{html.escape(page.title)}</strong><span>{html.escape(page.text[0])}</span></a>'
        )

    def _odd_ones(self) -> str:
        """A broken picture and one that is gone, as every old site has them."""
        if self._page.path != "/about.html":
            return ""
        odd = [content.BROKEN, *content.MISSING]
        return "".join(f'<img src="{path}" alt="">' for host, path in odd if host == self._site.host and path.endswith(".jpg"))

    def _address(self, shot: Shot) -> str:
        """How this page links to a picture; the blog does it relatively."""
        self._shown[place_of(shot)].add(Place(self._site.host, self._page.path))
        if shot.host != self._site.host:
            return f"demo://{shot.host}{shot.path}"
        return posixpath.relpath(shot.path, posixpath.dirname(self._page.path)) if shot.host == content.BLOG else shot.path


def _link(text: str, address: str) -> str:
    return f'<a href="{address}">{html.escape(text)}</a>'
