"""How far a marked picture is from its original."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from skimage.metrics import structural_similarity

from matcher.pixels import U8, gray


def psnr(original: U8, marked: U8) -> float:
    """Peak signal-to-noise ratio over all pixels and channels, in dB."""
    error = float(np.mean((original.astype(np.float64) - marked) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def ssim(original: U8, marked: U8) -> float:
    """Structural similarity of luma (Wang et al. 2004, with its Gaussian window of deviation 1.5)."""
    return _ssim(gray(original), gray(marked))


def ssim_rgb(original: U8, marked: U8) -> float:
    """The mean of the three channels': some methods mark colour alone, which luma does not show."""
    return float(np.mean([_ssim(original[..., channel], marked[..., channel]) for channel in range(3)]))


def _ssim(a: U8, b: U8) -> float:
    compare: Callable[..., float] = structural_similarity
    return float(compare(a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False))
