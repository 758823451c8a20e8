"""What happens to pictures that are taken: each alteration is a chain of steps on a Pillow image and a way to write the file."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from filigrane.demo.pictures import Rgb

Step = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Alteration:
    steps: tuple[Step, ...] = ()
    format: str = "JPEG"
    quality: int = 85

    def apply(self, picture: Rgb) -> bytes:
        """The bytes of the altered file."""
        image = Image.fromarray(np.ascontiguousarray(picture))
        for step in self.steps:
            image = step(image)
        return encoded(image, self.format, self.quality)


def encoded(image: Image.Image, format: str = "JPEG", quality: int = 85) -> bytes:
    options: dict[str, int] = {"compress_level": 1} if format == "PNG" else {"quality": quality}
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def resized(long_side: int) -> Step:
    """To that many pixels on the long side."""

    def step(image: Image.Image) -> Image.Image:
        scale = long_side / max(image.size)
        return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)

    return step


def cropped(left: float, top: float, right: float, bottom: float) -> Step:
    """The part between these fractions of width and height."""

    def step(image: Image.Image) -> Image.Image:
        return image.crop((round(left * image.width), round(top * image.height), round(right * image.width), round(bottom * image.height)))

    return step


def captioned(image: Image.Image) -> Image.Image:
    """White text on a dark bar over the lower part."""
    image = image.copy()
    draw = ImageDraw.Draw(image)
    size = max(image.height // 12, 12)
    draw.rectangle((0, image.height - 2 * size, image.width, image.height), fill=(20, 20, 20))
    draw.text(
        (size // 2, image.height - 1.7 * size), "You will not believe what happened next", fill="white", font=ImageFont.load_default(size)
    )
    return image


def stamped(image: Image.Image) -> Image.Image:
    """Somebody else's name across it, half transparent."""
    layer = Image.new("RGBA", image.size)
    font = ImageFont.load_default(max(image.height // 9, 14))
    for row in range(1, 4):
        ImageDraw.Draw(layer).text(
            (image.width * 0.08 * row, image.height * 0.23 * row), "© PIXEL PIRATES", fill=(255, 255, 255, 110), font=font
        )
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def framed(image: Image.Image) -> Image.Image:
    """A white border, wider below, as on an instant photo."""
    edge = image.width // 14
    return ImageOps.expand(image, border=(edge, edge, edge, 3 * edge), fill=(250, 250, 246))


def brightened(image: Image.Image) -> Image.Image:
    return ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(1.2)).enhance(1.1)


ALTERATIONS: Final[Mapping[str, Alteration]] = {
    "as it was": Alteration(quality=92),
    "PNG": Alteration(format="PNG"),
    "WebP": Alteration(format="WEBP", quality=80),
    "JPEG 40": Alteration(quality=40),
    "resized to 320": Alteration((resized(320),)),
    "resized to 480": Alteration((resized(480),)),
    "resized to 640": Alteration((resized(640),)),
    "resized to 960": Alteration((resized(960),), quality=80),
    "cropped to the middle": Alteration((cropped(0.15, 0.12, 0.85, 0.88),)),
    "cropped to the left": Alteration((cropped(0, 0.05, 0.62, 1),)),
    "cropped to a banner": Alteration((cropped(0, 0.2, 1, 0.75),), quality=75),
    "cropped, resized, JPEG 60": Alteration((cropped(0.1, 0.1, 0.9, 0.95), resized(400)), quality=60),
    "mirrored": Alteration((ImageOps.mirror,)),
    "mirrored and resized": Alteration((ImageOps.mirror, resized(400)), quality=75),
    "text over it": Alteration((captioned,)),
    "stamped": Alteration((stamped,)),
    "framed": Alteration((framed,)),
    "brightened": Alteration((brightened,), quality=80),
    "in gray": Alteration((ImageOps.grayscale, lambda image: image.convert("RGB"))),
}
