"""Pictures with little texture: logos, gradients, skies, text pages, charts, soft blobs. What leaves them whole is to be found, and none of
them is another's copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from bench.copies.attacks import PLAIN
from bench.copies.gallery import show_failures
from bench.copies.queries import ask, own
from bench.copies.recall import row_of, shows_of
from bench.copies.run import Run
from bench.copies.scoring import positives
from bench.copies.sets import Picture, Sets, sample
from bench.copies.systems import ask_filigrane, filigrane_index
from matcher.pixels import U8

WIDTH, HEIGHT = 800, 600
_STRAIGHT: Final = "straight gradient"
_SYLLABLES: Final = "ka to mi ren sol da vi el an pro ter qui lo mar est un ba".split()  # noqa: SIM905


def logo(seed: int) -> U8:
    """Two or three plain shapes and a name on one colour."""
    draw = np.random.default_rng(seed)
    image = Image.new("RGB", (WIDTH, HEIGHT), _color(draw, 150))
    pen = ImageDraw.Draw(image)
    for _ in range(int(draw.integers(2, 4))):
        x, y, r = draw.uniform(200, 600), draw.uniform(150, 350), draw.uniform(50, 140)
        sides = int(draw.integers(3, 9))
        if sides < 7:
            pen.regular_polygon((x, y, r), sides, draw.uniform(0, 90), _color(draw, 0))
        else:
            pen.ellipse((x - r, y - r, x + r, y + r), _color(draw, 0))
    pen.text((WIDTH / 2, 500), _word(draw).upper(), _color(draw, 0), ImageFont.load_default(90), anchor="mm")
    return np.asarray(image)


def gradient(seed: int) -> U8:
    """From one colour to another, along a line or around a point."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    angle, at = draw.uniform(0, 2 * np.pi), draw.uniform(0, 1, 2)
    along = x * np.cos(angle) + y * np.sin(angle) if seed % 2 else np.hypot(x - at[0], y - at[1])
    return _mixed(draw, along)


def sky(seed: int) -> U8:
    """Soft clouds before blue."""
    draw = np.random.default_rng(seed)
    noise = sum(_soft(draw, 4 * 2**n) / 2**n for n in range(4))
    down = np.linspace(0, 1, HEIGHT)[:, None]
    cloud = np.clip((noise - 0.9 - 0.3 * draw.uniform()) * 1.5, 0, 1)[..., None]
    blue = (np.array([70, 120, 200]) + draw.uniform(-25, 25, 3)) * (1 - down[..., None]) + np.array([170, 200, 235]) * down[..., None]
    return np.asarray((blue * (1 - cloud) + 245 * cloud).clip(0, 255), np.uint8)


def text_page(seed: int) -> U8:
    """Paragraphs of words that no other page has in that order, black on white."""
    draw = np.random.default_rng(seed)
    image = Image.new("RGB", (WIDTH, 1100), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(20)
    pen.text((80, 60), f"{_word(draw)} {_word(draw)}".title(), "black", ImageFont.load_default(36))
    for line in range(32):
        if line % int(draw.integers(5, 9)) or line % 2:
            pen.text((80, 140 + 28 * line), " ".join(_word(draw) for _ in range(9))[:62], "black", font)
    return np.asarray(image)


def chart(seed: int) -> U8:
    """Bars on axes."""
    draw = np.random.default_rng(seed)
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    pen.text((WIDTH / 2, 30), f"{_word(draw)} by {_word(draw)}", "black", ImageFont.load_default(28), anchor="mm")
    pen.line((80, 60, 80, 540, 760, 540), "black", 3)
    count = int(draw.integers(4, 10))
    for bar in range(count):
        left = 90 + bar * 660 / count
        pen.rectangle((left, 540 - draw.uniform(40, 440), left + 480 / count, 538), _color(draw, 0))
        pen.text((left, 550), _word(draw), "black", ImageFont.load_default(16))
    return np.asarray(image)


def blobs(seed: int) -> U8:
    """Large soft patches of two colours."""
    draw = np.random.default_rng(seed)
    return _mixed(draw, _soft(draw, 5))


KINDS: Final[Mapping[Callable[[int], U8], int]] = {logo: 16, gradient: 12, sky: 12, text_page: 12, chart: 6, blobs: 6}


def pictures(share: int = 1) -> list[Picture]:
    """All 64, or one of `share` of each kind; and scikit-image's colour wheel."""
    made = [Picture(f"{make.__name__}-{n}", partial(make, n)) for make, count in KINDS.items() for n in range(count // share)]
    return [*made, Picture("wheel-0", partial(sample, "color.png"))]


def run(run: Run) -> dict[str, Any]:
    """Registered beside the photos; attacked by what leaves the whole picture where it was; verdicts and the look alone."""
    flat = pictures(4 if run.quick else 1)
    registered = [*run.sets.registered, *flat]
    queries = ask(Sets(flat, ()), own, PLAIN, run.cache)
    index, shows = filigrane_index(registered, run.cache), shows_of(registered, queries)
    answers = ask_filigrane(index, registered, queries, "affine")
    show_failures(run.out / "copies" / "flat", registered, queries, shows, answers)
    similar = ask_filigrane(index, registered, queries, "affine", similar=True)
    row = row_of("filigrane, affine", answers.copies, shows, queries)
    found, first = np.isfinite(positives(answers.copies, shows)), positives(similar.all, shows) == 0
    kinds = np.array([_kind(str(query.shows)) for query in queries])
    told = kinds != _STRAIGHT
    return {
        "pictures": len(flat),
        "queries": len(queries),
        "said_copy": round(float(found.mean()), 4),
        "said_copy_of_those_told": round(float(found[told].mean()), 4),
        "false_copies": row["false"],
        "similar_first": round(float(first.mean()), 4),
        "kinds": {
            kind: {"said_copy": _share(found, kinds, kind), "similar_first": _share(first, kinds, kind)}
            for kind in dict.fromkeys(kinds.tolist())
        },
        "attacks": row["attacks"],
    }


def _kind(name: str) -> str:
    """Every second gradient is a straight one, which nothing tells from others."""
    kind, number = name.rsplit("-", 1)
    return _STRAIGHT if kind == "gradient" and int(number) % 2 else kind


def _share(found: Any, kinds: Any, kind: str) -> float:
    return round(float(found[kinds == kind].mean()), 4)


def markdown(result: Mapping[str, Any]) -> list[str]:
    rows = {**result["kinds"], "all": result}
    return [
        f"{result['pictures']} pictures, {result['queries']} queries; false copies: {result['false_copies']}; said to be a copy of all but "
        f"straight gradients: {result['said_copy_of_those_told']:.3f}",
        "",
        "| kind | said to be a copy | first with `similar` |",
        "|---|---|---|",
        *(f"| {kind} | {row['said_copy']:.3f} | {row['similar_first']:.3f} |" for kind, row in rows.items()),
    ]


def _soft(draw: Generator, cells: int) -> Any:
    """Smooth noise, 0..1, with about `cells` bumps across."""
    coarse = Image.fromarray(draw.integers(0, 256, (cells * 3 // 4 + 1, cells + 1)).astype(np.uint8))
    return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(8))) / 255.0


def _mixed(draw: Generator, along: Any) -> U8:
    first, second = draw.uniform(0, 130, 3), draw.uniform(120, 256, 3)
    share = ((along - along.min()) / (along.max() - along.min()))[..., None]
    return np.asarray(first * (1 - share) + second * share, np.uint8)


def _color(draw: Generator, least: int) -> tuple[int, int, int]:
    red, green, blue = (int(c) for c in draw.integers(least, 256 if least else 200, 3))
    return red, green, blue


def _word(draw: Generator) -> str:
    return "".join(draw.choice(_SYLLABLES, int(draw.integers(1, 4))))
