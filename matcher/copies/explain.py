"""A picture of why two pictures match: side by side, the outline of one in the other, and one laid over the other."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from matcher.pixels import F64, U8, check_rgb, resized_to, scaling

HEIGHT: Final = 480
_WIDEST: Final = 1_440
_GAP: Final = 12
_LINE: Final = 28
_PAPER: Final = 255
_OUTLINE: Final = (255, 40, 40)
_SQUARE: Final = 40


def explain(registered: U8, query: U8, transform: F64, caption: str, sizes: tuple[tuple[int, int], tuple[int, int]] | None = None) -> U8:
    """Three panels, `HEIGHT` high, over a line of text: the registered picture; the query with the registered picture's outline; the query
    with every second square taken from the registered picture, where it should continue without a seam.

    `transform` (3 x 3) maps the registered picture's pixels to the query's, mirrors included, both of the originals; `sizes` are the
    originals' (width, height), where the arrays (H x W x 3) were decoded smaller. Raises ValueError for what is no picture or no transform.
    """
    check_rgb(registered)
    check_rgb(query)
    if transform.shape != (3, 3) or not np.isfinite(transform).all():
        raise ValueError("a transform is a finite 3 x 3 matrix")
    left, right = _panel(registered), _panel(query)
    sizes = sizes or (_size(registered), _size(query))
    placed = scaling(sizes[1], _size(right)) @ transform @ np.linalg.inv(scaling(sizes[0], _size(left)))
    return _captioned(_beside([left, _outlined(right, left, placed), _interleaved(right, left, placed)]), caption)


def _size(image: U8) -> tuple[int, int]:
    return image.shape[1], image.shape[0]


def _panel(image: U8) -> U8:
    """The picture, `HEIGHT` high; less where it would get too wide."""
    width, height = _size(image)
    scale = min(HEIGHT / height, _WIDEST / width)
    return resized_to(image, (max(1, round(width * scale)), max(1, round(height * scale))))


def _outlined(query: U8, registered: U8, transform: F64) -> U8:
    width, height = _size(registered)
    corners = transform @ np.array([[-0.5, width - 0.5, width - 0.5, -0.5], [-0.5, -0.5, height - 0.5, height - 0.5], [1, 1, 1, 1]])
    outline = (corners[:2] / corners[2]).T.clip(-30_000, 30_000).round().astype(np.int32)
    return np.asarray(cv2.polylines(query.copy(), [outline], True, _OUTLINE, 2, cv2.LINE_AA), np.uint8)


def _interleaved(query: U8, registered: U8, transform: F64) -> U8:
    size = _size(query)
    laid = cv2.warpPerspective(registered, transform, size, flags=cv2.INTER_LINEAR)
    inside = cv2.warpPerspective(np.full(registered.shape[:2], 255, np.uint8), transform, size, flags=cv2.INTER_NEAREST) > 0
    rows, columns = np.indices(query.shape[:2]) // _SQUARE
    chosen = inside & ((rows + columns) % 2 == 0)
    return np.where(chosen[..., None], laid, query).astype(np.uint8)


def _beside(panels: list[U8]) -> U8:
    height = max(panel.shape[0] for panel in panels)
    width = sum(panel.shape[1] for panel in panels) + _GAP * (len(panels) - 1)
    sheet = np.full((height, width, 3), _PAPER, np.uint8)
    start = 0
    for panel in panels:
        sheet[: panel.shape[0], start : start + panel.shape[1]] = panel
        start += panel.shape[1] + _GAP
    return sheet


def _captioned(sheet: U8, caption: str) -> U8:
    line = np.full((_LINE, sheet.shape[1], 3), _PAPER, np.uint8)
    cv2.putText(line, caption.encode("ascii", "replace").decode(), (4, _LINE - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([sheet, line])
