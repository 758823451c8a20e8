"""Pictures as arrays: what copies, watermarks and the decoder agree on. Arrays are uint8; colour is sRGB, H x W x 3."""

from __future__ import annotations

import hashlib
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

MAX_SIDE: Final = 65_535


def check_rgb(rgb: U8) -> None:
    """Raises ValueError unless `rgb` is uint8, H x W x 3, with sides of 1 to 65,535 pixels."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"a picture is uint8, H x W x 3; this is {rgb.dtype}, {rgb.shape}")
    if not (0 < rgb.shape[0] <= MAX_SIDE and 0 < rgb.shape[1] <= MAX_SIDE):
        raise ValueError(f"a picture has sides of 1 to {MAX_SIDE} pixels; this has {rgb.shape[1]} x {rgb.shape[0]}")


def pixel_hash(rgb: U8) -> bytes:
    """SHA-256 (32 bytes) over width, height and pixels: the same for one picture whatever its metadata and lossless format."""
    check_rgb(rgb)
    height, width = rgb.shape[:2]
    digest = hashlib.sha256(f"rgb8 {width} {height}\n".encode())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.digest()


def gray(rgb: U8) -> U8:
    """Luma (BT.601), H x W."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)


def fit(width: int, height: int, side: int) -> tuple[int, int]:
    """(width, height) scaled so that the longer side is `side`; never below one pixel."""
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def resized(image: U8, side: int) -> U8:
    """The picture (gray or colour) with `side` pixels on its longer side: area-averaged when it shrinks, cubic when it grows."""
    height, width = image.shape[:2]
    if max(width, height) == side:
        return image
    return resized_to(image, fit(width, height, side))


def resized_to(image: U8, size: tuple[int, int]) -> U8:
    """Like `resized`, with that (width, height)."""
    how = cv2.INTER_AREA if max(image.shape[:2]) > max(size) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def scaling(source: tuple[int, int], target: tuple[int, int]) -> F64:
    """3 x 3 matrix from pixel centres of a picture of size (width, height) `source` to those of it resized to `target`."""
    sx, sy = target[0] / source[0], target[1] / source[1]
    return np.array([[sx, 0, sx / 2 - 0.5], [0, sy, sy / 2 - 0.5], [0, 0, 1]])


def flip(width: int) -> F64:
    """3 x 3 matrix that mirrors a picture `width` pixels wide, left to right."""
    return np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])


def jpeg(image: U8, quality: int) -> bytes:
    """The gray or colour picture as JPEG bytes."""
    done, data = cv2.imencode(".jpg", image if image.ndim == 2 else image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("the picture could not be written as JPEG")
    return bytes(data.tobytes())


def gray_from_jpeg(data: bytes) -> U8:
    """Luma of JPEG bytes that `jpeg` wrote. Raises ValueError. Not for bytes from outside: those go through `matcher.decode`."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if image is None:
        raise ValueError("not a JPEG picture")
    return np.asarray(image, np.uint8)
