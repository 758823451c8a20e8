from __future__ import annotations

import cv2
import numpy as np
import pytest

from filigrane.demo import pictures
from matcher.copies.explain import HEIGHT, explain
from matcher.pixels import flip


def test_a_copy_laid_over_its_original_shows_no_seam() -> None:
    original = pictures.mountains(1)
    height, width = original.shape[:2]
    part = np.ascontiguousarray(original[height // 4 : height // 4 * 3, width // 4 : width // 4 * 3])
    transform = np.array([[1.0, 0, -(width // 4)], [0, 1, -(height // 4)], [0, 0, 1]])
    shown = explain(original, part, transform, "copy, score 40")
    laid = shown[:HEIGHT, -round(part.shape[1] * HEIGHT / part.shape[0]) :]
    expected = cv2.resize(part, (laid.shape[1], laid.shape[0]), interpolation=cv2.INTER_AREA if part.shape[0] > HEIGHT else cv2.INTER_CUBIC)
    assert np.abs(laid.astype(int) - expected.astype(int)).mean() < 6
    elsewhere = explain(original, part, transform @ np.array([[1.0, 0, 60], [0, 1, 40], [0, 0, 1]]), "")
    assert np.abs(elsewhere[:HEIGHT, -laid.shape[1] :].astype(int) - expected.astype(int)).mean() > 12


def test_mirrors_and_smaller_arrays_are_placed_by_the_originals_sizes() -> None:
    original = pictures.city(1)
    height, width = original.shape[:2]
    query = np.ascontiguousarray(original[:, ::-1])
    small = cv2.resize(original, (width // 2, height // 2), interpolation=cv2.INTER_AREA).astype(np.uint8)
    shown = explain(small, query, flip(width), "mirrored", ((width, height), (width, height)))
    panel = round(width * HEIGHT / height)
    expected = cv2.resize(query, (panel, HEIGHT), interpolation=cv2.INTER_AREA if height > HEIGHT else cv2.INTER_CUBIC)
    assert np.abs(shown[:HEIGHT, -panel:].astype(int) - expected.astype(int)).mean() < 12


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5_000, 3), (4_000, 2, 3)])
def test_any_shape_gives_a_sheet(shape: tuple[int, int, int]) -> None:
    sheet = explain(np.zeros(shape, np.uint8), pictures.marble(1), np.eye(3), "é")
    assert sheet.ndim == 3
    assert sheet.shape[1] < 5_000


@pytest.mark.parametrize("transform", [np.eye(2), np.full((3, 3), np.nan)])
def test_what_is_no_transform_is_refused(transform: np.ndarray) -> None:
    with pytest.raises(ValueError, match="3 x 3"):
        explain(pictures.marble(1), pictures.marble(1), transform, "")
