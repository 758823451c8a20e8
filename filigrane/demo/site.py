"""Builds the demo's little web: pictures to register, and three sites with an image host that show altered copies of them.

Everything is made anew into a folder, the same bytes each time (but for watermarks, whose keys are drawn).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

import filigrane
from filigrane.demo import content
from filigrane.demo.alterations import ALTERATIONS, encoded
from filigrane.demo.content import SHOTS, SITES
from filigrane.demo.pages import Shown, place_of, write, write_site
from filigrane.demo.pictures import DECOYS, ORIGINALS, WATERMARKED, Rgb
from filigrane.demo.plan import Decoy, Original, Place, Plan, Planted
from filigrane.demo.server import Request, Served, serve

Mark = Callable[[Rgb], tuple[Rgb, bytes]]
"""A picture to its marked form and the registration's bytes."""


def watermark(rgb: Rgb) -> tuple[Rgb, bytes]:
    """The `mark` to build with: a key of its own for every picture."""
    marked, registration = filigrane.embed(rgb)
    return marked, registration.to_bytes()


def build(folder: Path, *, mark: Mark | None = None) -> Plan:
    """Writes originals, marked pictures and the sites' files into `folder`. Without `mark` no picture is watermarked."""
    originals = tuple(_write_original(folder / "originals", name, mark if name in WATERMARKED else None) for name in ORIGINALS)
    web = folder / "web"
    _write_shots(web, originals)
    _write_broken(web)
    shown: Shown = defaultdict(set)
    for site in SITES:
        write_site(web, site, shown)
    write(web / content.IMAGES / "robots.txt", b"User-agent: *\nAllow: /\n")
    return _plan(web, originals, shown)


def _plan(web: Path, originals: tuple[Original, ...], shown: Shown) -> Plan:
    marked = {original.name for original in originals if original.watermarked}
    reachable = {place_of(shot): shot for shot in SHOTS.values() if not _is_forbidden(place_of(shot))}
    pages = {place: tuple(sorted(page for page in shown[place] if not _is_forbidden(page))) for place in reachable}
    return Plan(
        folder=web,
        hosts=(*(site.host for site in SITES), content.IMAGES),
        sites=tuple(site.host for site in SITES),
        titles={site.host: site.title for site in SITES},
        originals=originals,
        planted=tuple(
            Planted(place, shot.picture, shot.alteration, shot.picture in marked, pages[place])
            for place, shot in reachable.items()
            if shot.picture in ORIGINALS
        ),
        decoys=tuple(Decoy(place, shot.picture, pages[place]) for place, shot in reachable.items() if shot.picture in DECOYS),
        forbidden=tuple(sorted(_forbidden())),
        broken=(Place(*content.BROKEN),),
        missing=tuple(Place(*place) for place in content.MISSING),
        redirects={Place(*source): Place(*target) for source, target in content.REDIRECTS.items()},
    )


def _is_forbidden(place: Place) -> bool:
    return any(site.host == place.site and place.path.startswith(site.disallow) for site in SITES if site.disallow)


def _forbidden() -> Iterable[Place]:
    """Pages and pictures that robots.txt forbids."""
    everything = [place_of(shot) for shot in SHOTS.values()] + [Place(site.host, page.path) for site in SITES for page in site.pages]
    return filter(_is_forbidden, everything)


# Pictures


def _write_original(folder: Path, name: str, mark: Mark | None) -> Original:
    rgb = ORIGINALS[name]()
    file = write(folder / f"{name}.png", _png(rgb))
    if mark is None:
        return Original(name, file)
    marked, registration = mark(rgb)
    return Original(
        name,
        file,
        write(folder.parent / "marked" / f"{name}.png", _png(marked)),
        write(folder.parent / "marked" / f"{name}.lmk", registration),
    )


def _write_shots(web: Path, originals: Iterable[Original]) -> None:
    pictures = {original.name: _read(original.marked or original.file) for original in originals}
    pictures |= {name: draw() for name, draw in DECOYS.items()}
    for shot in SHOTS.values():
        write(web / shot.host / shot.path[1:], ALTERATIONS[shot.alteration].apply(pictures[shot.picture]))


def _write_broken(web: Path) -> None:
    """The beginning of a JPEG: its header, and no picture that anybody could see."""
    host, path = content.BROKEN
    write(web / host / path[1:], ALTERATIONS["as it was"].apply(DECOYS["bricks"]())[:700])


def _png(rgb: Rgb) -> bytes:
    return encoded(Image.fromarray(rgb), "PNG")


def _read(file: Path) -> Rgb:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"))


__all__ = ["Decoy", "Mark", "Original", "Place", "Plan", "Planted", "Request", "Served", "build", "serve", "watermark"]
