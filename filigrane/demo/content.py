"""The text and the pictures of the demo's three sites. Nothing here does anything: `site` makes files of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

NEWS, SHOP, BLOG, IMAGES = "news", "shop", "blog", "images"

How = Literal["img", "lazy", "srcset", "picture", "background", "style", "og"]


@dataclass(frozen=True)
class Shot:
    """A file: a picture (an original's or decoy's name), altered, at a path of a host."""

    host: str
    path: str
    picture: str
    alteration: str = "as it was"


@dataclass(frozen=True)
class Figure:
    """Shots as one element of a page; several for the sizes of `srcset` and the formats of `picture`."""

    shots: tuple[str, ...]
    alt: str
    how: How = "img"


@dataclass(frozen=True)
class Page:
    path: str
    title: str
    text: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    thumb: str | None = None
    """What other pages show beside the link to this one."""
    cards: tuple[str, ...] = ()
    """Paths of the pages that are presented here."""
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Site:
    host: str
    title: str
    motto: str
    accent: str
    navigation: tuple[tuple[str, str], ...]
    pages: tuple[Page, ...]
    disallow: tuple[str, ...] = ()


def fig(shots: str, alt: str, how: How = "img") -> Figure:
    return Figure(tuple(shots.split()), alt, how)


SHOTS: Final[Mapping[str, Shot]] = {
    # The news site; its small pictures come from the image host.
    "launch": Shot(NEWS, "/images/launch.jpg", "rocket", "JPEG 40"),
    "launch-share": Shot(NEWS, "/images/share/launch.jpg", "rocket", "cropped to a banner"),
    "launch-small": Shot(IMAGES, "/lantern/launch-320.jpg", "rocket", "resized to 320"),
    "crew": Shot(NEWS, "/images/crew.jpg", "astronaut", "cropped to the middle"),
    "crew-small": Shot(IMAGES, "/lantern/crew-320.jpg", "astronaut", "resized to 320"),
    "field-480": Shot(NEWS, "/images/deep-field-480.jpg", "galaxies", "resized to 480"),
    "field-640": Shot(NEWS, "/images/deep-field-640.jpg", "galaxies", "resized to 640"),
    "field-960": Shot(NEWS, "/images/deep-field-960.jpg", "galaxies", "resized to 960"),
    "eye": Shot(NEWS, "/images/eye.jpg", "retina", "resized to 640"),
    "eye-small": Shot(IMAGES, "/lantern/eye-320.jpg", "retina", "resized to 320"),
    "moon": Shot(NEWS, "/images/moon.jpg", "moon", "mirrored"),
    "skyline": Shot(NEWS, "/images/skyline.jpg", "city", "cropped to the left"),
    "skyline-small": Shot(IMAGES, "/lantern/skyline-480.jpg", "city", "resized to 480"),
    "tripod": Shot(NEWS, "/images/tripod.jpg", "photographer", "text over it"),
    "hoard": Shot(NEWS, "/images/hoard.jpg", "coins", "stamped"),
    "weather": Shot(NEWS, "/images/weather.jpg", "mountains", "framed"),
    "front": Shot(NEWS, "/images/front.jpg", "mountains", "cropped to a banner"),
    "unreleased": Shot(NEWS, "/desk/unreleased.jpg", "astronaut", "brightened"),
    "evening": Shot(NEWS, "/images/evening.jpg", "another evening sky"),
    "starry": Shot(NEWS, "/images/starry.jpg", "another starry sky"),
    "cell": Shot(NEWS, "/images/cell.jpg", "a cell, not a moon"),
    "downtown": Shot(NEWS, "/images/downtown.jpg", "another city", "resized to 640"),
    "emblem": Shot(NEWS, "/images/emblem.png", "a logo", "PNG"),
    # The shop.
    "peaks-320": Shot(SHOP, "/media/peaks-320.jpg", "mountains", "resized to 320"),
    "peaks-640": Shot(SHOP, "/media/peaks-640.jpg", "mountains", "resized to 640"),
    "peaks-960": Shot(SHOP, "/media/peaks-960.jpg", "mountains", "resized to 960"),
    "slab-webp": Shot(SHOP, "/media/slab.webp", "marble", "WebP"),
    "slab": Shot(SHOP, "/media/slab.jpg", "marble", "resized to 640"),
    "window": Shot(SHOP, "/media/window.jpg", "stained-glass", "framed"),
    "window-small": Shot(IMAGES, "/plume/window-480.jpg", "stained-glass", "resized to 480"),
    "bike": Shot(SHOP, "/media/bike.jpg", "motorcycle", "resized to 640"),
    "cup": Shot(SHOP, "/media/cup.jpg", "coffee", "cropped, resized, JPEG 60"),
    "cup-small": Shot(IMAGES, "/plume/cup-320.jpg", "coffee", "resized to 320"),
    "cat-print": Shot(SHOP, "/media/cat.jpg", "cat", "brightened"),
    "pebbles": Shot(SHOP, "/media/pebbles.jpg", "gravel", "JPEG 40"),
    "tissue-print": Shot(SHOP, "/media/tissue.jpg", "tissue", "as it was"),
    "banner": Shot(SHOP, "/media/banner.jpg", "stained-glass", "cropped to a banner"),
    "preview": Shot(SHOP, "/members/preview.jpg", "coffee", "in gray"),
    "bike-other": Shot(SHOP, "/media/bike-again.jpg", "the motorcycle from half a step aside"),
    "slab-other": Shot(SHOP, "/media/slab-rose.jpg", "other marble"),
    "window-other": Shot(SHOP, "/media/window-north.jpg", "another window", "resized to 640"),
    "lawn": Shot(SHOP, "/media/lawn.jpg", "grass, not gravel"),
    "wall": Shot(SHOP, "/media/wall.jpg", "bricks"),
    # The blog.
    "espresso": Shot(BLOG, "/img/espresso.jpg", "coffee", "mirrored and resized"),
    "garage": Shot(BLOG, "/img/garage.jpg", "motorcycle", "text over it"),
    "whiskers": Shot(BLOG, "/img/whiskers.png", "cat", "PNG"),
    "field-work": Shot(BLOG, "/img/field-work.jpg", "photographer", "framed"),
    "stain": Shot(BLOG, "/img/stain.jpg", "tissue", "in gray"),
    "hike": Shot(BLOG, "/img/hike.jpg", "mountains", "cropped to the left"),
    "suit": Shot(BLOG, "/img/suit.jpg", "astronaut", "text over it"),
    "pad": Shot(BLOG, "/img/pad.jpg", "rocket", "stamped"),
    "beach": Shot(BLOG, "/img/beach.jpg", "gravel", "cropped to the middle"),
    "floor": Shot(BLOG, "/img/floor.jpg", "marble", "cropped, resized, JPEG 60"),
    "night": Shot(BLOG, "/img/night.webp", "city", "WebP"),
    "craters": Shot(IMAGES, "/shutter/craters.jpg", "moon", "brightened"),
    "cup-blog": Shot(IMAGES, "/shutter/cup-480.jpg", "coffee", "resized to 480"),
    "lava": Shot(BLOG, "/img/lava.jpg", "the colours of the coffee"),
    "ridge": Shot(BLOG, "/img/ridge.jpg", "other mountains", "resized to 960"),
}

_news = Site(
    NEWS,
    "The Lantern",
    "News that keeps the light on",
    "#9a3324",
    (("Front page", "/"), ("Science", "/science.html"), ("City", "/city.html"), ("Culture", "/culture.html"), ("Archive", "/archive.html")),
    (
        Page(
            "/",
            "Front page",
            ("A rocket on the pad, a hoard under a parking lot, and weather that cannot make up its mind.",),
            (fig("front", "Ridges in the evening haze", "background"),),
            cards=("/stories/launch.html", "/stories/crew.html", "/stories/skyline.html", "/stories/eye.html"),
            links=(("The latest weather", "/latest"), ("About us", "/about.html"), ("For our own desk", "/desk/")),
        ),
        Page(
            "/science.html",
            "Science",
            ("What telescopes, microscopes and patient people saw this week.",),
            cards=("/stories/launch.html", "/stories/crew.html", "/stories/deep-field.html", "/stories/eye.html", "/stories/moon.html"),
        ),
        Page(
            "/city.html",
            "City",
            ("Streets, roofs and those who look at them.",),
            cards=("/stories/skyline.html", "/stories/tripod.html"),
        ),
        Page("/culture.html", "Culture", ("Old metal and new glass.",), cards=("/stories/hoard.html", "/stories/tripod.html")),
        Page(
            "/archive.html",
            "Archive",
            ("Everything that we printed, the newest last.",),
            cards=("/stories/hoard.html", "/stories/moon.html", "/stories/deep-field.html"),
            links=(("The launch, as first reported", "/2019/launch"), ("A story that we took back", "/stories/gone.html")),
        ),
        Page(
            "/stories/launch.html",
            "All quiet on the pad",
            (
                "The countdown stands at six hours. Lamps are lit along the fence, and the tanks are cold.",
                "If the wind stays below twenty knots, the first stage will be back before breakfast.",
            ),
            (fig("launch-share", "", "og"), fig("launch", "The rocket on its pad at nightfall")),
            "launch-small",
        ),
        Page(
            "/stories/crew.html",
            "She has packed already",
            ("The commander carries one book, two photographs and a spare pair of socks.", "Training ends on Friday."),
            (fig("crew", "The commander in her orange suit"),),
            "crew-small",
        ),
        Page(
            "/stories/deep-field.html",
            "Ten days of nothing, full of galaxies",
            ("Astronomers pointed a telescope at a dark patch of sky and waited.", "Amateurs tried the same from a garden; see below."),
            (fig("field-480 field-640 field-960", "Galaxies without number", "srcset"), fig("starry", "The sky above a garden", "lazy")),
        ),
        Page(
            "/stories/eye.html",
            "A look into the eye",
            ("A camera as small as a thumb sees the vessels behind the pupil.", "It may find a disease years before it hurts."),
            (fig("eye", "The back of an eye", "lazy"),),
            "eye-small",
        ),
        Page(
            "/stories/moon.html",
            "The moon, the other way round",
            ("Our picture desk printed it mirrored. Eleven readers wrote in, and one of them had been there.",),
            (fig("moon", "Craters and hills"), fig("cell", "This one is a cell under a microscope")),
        ),
        Page(
            "/stories/skyline.html",
            "Lights out at eleven",
            ("The council wants dark offices at night. Owls approve; the cleaning crews do not.",),
            (fig("skyline", "Towers with some windows lit"), fig("downtown", "Another city that tried it")),
            "skyline-small",
        ),
        Page(
            "/stories/tripod.html",
            "The man on the lawn",
            ("For thirty years he has taken the same photograph. He says that it is not the same.",),
            (fig("tripod", "A photographer bends to his camera"),),
        ),
        Page(
            "/stories/hoard.html",
            "Twenty-four coins under a parking lot",
            ("A digger lifted the slab, and there they lay in rows, as if somebody had wanted them counted.",),
            (fig("hoard", "The coins on dark cloth"),),
        ),
        Page(
            "/stories/weather.html",
            "Fog, then more fog",
            ("The ridges keep the clouds until Sunday. The evenings on the coast stay clear.",),
            (fig("weather", "Fog between the ridges"), fig("evening", "A clear evening by the harbour")),
        ),
        Page(
            "/about.html",
            "About us",
            ("Seven people, two rooms, one lamp.",),
            (fig("emblem", "Our emblem"),),
            links=(("Our prints are at Plume & Paper", "demo://shop/"), ("Our neighbour's blog", "demo://blog/")),
        ),
        Page("/desk/", "The desk", ("Not for publication.",), (fig("unreleased", "Not yet released"),)),
    ),
    ("/desk/",),
)

_shop = Site(
    SHOP,
    "Plume & Paper",
    "Prints on heavy paper, sent flat",
    "#2f5d50",
    (("Shop", "/"), ("Landscapes", "/prints/landscapes.html"), ("Objects", "/prints/objects.html"), ("Gallery", "/gallery.html")),
    (
        Page(
            "/",
            "Prints",
            ("Everything on this page hangs on somebody's wall. It could be yours.",),
            (fig("banner", "Stained glass against the light", "style"),),
            cards=("/prints/peaks.html", "/prints/glass.html", "/prints/coffee.html"),
            links=(("The sale", "/sale"), ("Your cart", "/cart/"), ("About", "/about.html")),
        ),
        Page(
            "/prints/landscapes.html",
            "Landscapes",
            ("Near and far, mostly far.",),
            cards=("/prints/peaks.html", "/prints/pebbles.html"),
        ),
        Page(
            "/prints/objects.html",
            "Objects",
            ("Things that hold still.",),
            cards=("/prints/coffee.html", "/prints/motorcycle.html", "/prints/marble.html", "/prints/glass.html"),
        ),
        Page(
            "/prints/peaks.html",
            "Peaks I",
            ("Five ridges, one evening. Giclée, 60 x 40 cm.",),
            (fig("peaks-320 peaks-640 peaks-960", "Five ridges in the evening", "srcset"),),
            "peaks-320",
        ),
        Page(
            "/prints/marble.html",
            "Slab",
            ("Veins in green stone. Also in rose.",),
            (fig("slab-webp slab", "Veins in green stone", "picture"), fig("slab-other", "The rose one")),
            "slab",
        ),
        Page(
            "/prints/glass.html",
            "South window",
            ("Seventy panes. The north window is sold out.",),
            (fig("window", "Coloured panes in lead"), fig("window-other", "The north window")),
            "window-small",
        ),
        Page(
            "/prints/motorcycle.html",
            "Garage, Sunday",
            ("Taken twice, half a step apart: which is yours?",),
            (fig("bike", "A red motorcycle in a garage"), fig("bike-other", "The same garage, half a step aside")),
            "bike",
        ),
        Page(
            "/prints/coffee.html",
            "Second cup",
            ("For kitchens and for those who would like one.",),
            (fig("cup", "A cup of coffee on a wooden table"),),
            "cup-small",
        ),
        Page("/prints/cat.html", "Mia", ("She does not do portraits. This is the only one.",), (fig("cat-print", "A cat looks past you"),)),
        Page(
            "/prints/pebbles.html",
            "Ground I to III",
            ("Gravel, grass, brick. As a set or each alone.",),
            (fig("pebbles", "Gravel"), fig("lawn", "Grass"), fig("wall", "Brick")),
        ),
        Page(
            "/prints/tissue.html",
            "Rivers",
            ("No river at all: a section under a microscope, stained.",),
            (fig("tissue-print", "A stained section"),),
        ),
        Page(
            "/gallery.html",
            "Gallery",
            ("How they look when they hang.",),
            (
                fig("window", "South window, framed", "lazy"),
                fig("bike", "Garage, Sunday", "lazy"),
                fig("cat-print", "Mia", "lazy"),
                fig("tissue-print", "Rivers", "lazy"),
            ),
            links=(("Mia", "/prints/cat.html"), ("Rivers", "/prints/tissue.html")),
        ),
        Page("/about.html", "About", ("We print on Tuesdays. Members see the new ones first:",), (fig("preview", "For members only"),)),
        Page("/cart/", "Your cart", ("It is empty.",)),
    ),
    ("/cart/", "/members/"),
)

_blog = Site(
    BLOG,
    "Slow Shutter",
    "One picture at a time",
    "#3b4a8c",
    (
        ("Posts", "/"),
        ("Older posts", "/page/2.html"),
        ("Nature", "/tags/nature.html"),
        ("Machines", "/tags/machines.html"),
        ("About", "/about.html"),
    ),
    (
        Page(
            "/",
            "Posts",
            ("I carry a camera so that I have a reason to stop.",),
            cards=("/posts/espresso.html", "/posts/garage.html", "/posts/hike.html", "/posts/night.html"),
        ),
        Page(
            "/page/2.html",
            "Older posts",
            ("From last year, when it rained.",),
            cards=("/posts/whiskers.html", "/posts/field-work.html", "/posts/stain.html", "/posts/beach.html", "/posts/floor.html"),
        ),
        Page("/tags/nature.html", "Nature", ("Tagged: nature.",), cards=("/posts/hike.html", "/posts/beach.html", "/posts/craters.html")),
        Page("/tags/machines.html", "Machines", ("Tagged: machines.",), cards=("/posts/garage.html", "/posts/launch-day.html")),
        Page(
            "/posts/espresso.html",
            "Left-handed espresso",
            ("I flipped it, since I drink with the left.", "The second one is not coffee. It has its colours, every one of them."),
            (fig("espresso", "A cup, the handle on the wrong side"), fig("lava", "Not coffee", "lazy")),
            "cup-blog",
        ),
        Page(
            "/posts/garage.html",
            "Sunday in the garage",
            ("Nothing was repaired.",),
            (fig("garage", "A motorcycle, and a caption that shouts"),),
        ),
        Page("/posts/whiskers.html", "Whiskers", ("Every single one, no compression.",), (fig("whiskers", "A cat's face"),)),
        Page("/posts/field-work.html", "Field work", ("He taught me to wait.",), (fig("field-work", "A man and a tripod, framed"),)),
        Page(
            "/posts/stain.html",
            "Without the stain",
            ("Take away the colours and it becomes a map.",),
            (fig("stain", "A section in gray", "lazy"),),
        ),
        Page(
            "/posts/hike.html",
            "Up and down again",
            ("Two mornings, two valleys.",),
            (fig("hike", "The first valley"), fig("ridge", "The second valley")),
        ),
        Page(
            "/posts/launch-day.html",
            "Launch day",
            ("We stood on the roof of the car.", "The suit is from the museum shop's postcard."),
            (fig("pad", "The pad"), fig("suit", "An astronaut's suit")),
        ),
        Page("/posts/beach.html", "A beach without sand", ("It is all like this.",), (fig("beach", "Stones and stones"),)),
        Page("/posts/floor.html", "Look down", ("The best picture in the museum was its floor.",), (fig("floor", "A marble floor"),)),
        Page(
            "/posts/night.html",
            "Night shift",
            ("Thirty seconds, and somebody switched off the light.",),
            (fig("night", "A city at night"),),
        ),
        Page("/posts/craters.html", "Craters", ("Through a borrowed telescope.",), (fig("craters", "The moon's surface"),)),
        Page(
            "/about.html",
            "About",
            ("I am slow. So is the shutter.",),
            links=(("I read The Lantern", "demo://news/"), ("A page that I lost", "/posts/lost.html")),
        ),
    ),
)

SITES: Final = (_news, _shop, _blog)

REDIRECTS: Final = {
    (NEWS, "/latest"): (NEWS, "/stories/weather.html"),
    (NEWS, "/2019/launch"): (NEWS, "/stories/launch.html"),
    (SHOP, "/sale"): (SHOP, "/prints/coffee.html"),
}

BROKEN: Final = (NEWS, "/images/damaged.jpg")
"""Shown on the news site's page about itself."""

MISSING: Final = ((NEWS, "/stories/gone.html"), (BLOG, "/posts/lost.html"), (BLOG, "/img/lost.jpg"))
