"""A query that may show a registered picture."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from matcher.copies.features import Fingerprint, fingerprint_gray
from matcher.pixels import U8, check_rgb, gray
from matcher.watermark.pyramid import Pyramid


class Query:
    """A picture (H x W luma), and what is made of it once, for all registered ones that it may show. For one thread.

    `print_`: its fingerprint, or that of another size of it, where there is one.
    """

    def __init__(self, image: U8, print_: Fingerprint | None = None) -> None:
        self.size = (image.shape[1], image.shape[0])
        self._image = image
        self._print = print_
        self._forms: dict[bool, Pyramid] = {}

    @classmethod
    def of(cls, rgb: U8, print_: Fingerprint | None = None) -> Query:
        """H x W x 3. Raises ValueError for what is no picture."""
        check_rgb(rgb)
        return cls(gray(rgb), print_)

    def form(self, flipped: bool) -> Pyramid:
        """The query, or its mirror."""
        if flipped not in self._forms:
            self._forms[flipped] = Pyramid.of(np.ascontiguousarray(self._image[:, ::-1]) if flipped else self._image)
        return self._forms[flipped]

    @cached_property
    def fingerprint(self) -> Fingerprint:
        return self._print or fingerprint_gray(self._image)
