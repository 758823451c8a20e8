from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from matcher.watermark.detect import detect
from matcher.watermark.embed import embed
from matcher.watermark.errors import RegistrationInvalid
from matcher.watermark.small import MAX_SIDE, small_picture
from tests.matcher.pictures import encoded, photo

_MARKED, _REGISTRATION = embed(photo(1))
_PROGRESSIVE = encoded(photo(1), "JPEG", progressive=True, quality=85)


def with_scans(count: int) -> bytes:
    """The same picture; its last scan, which refines one component, comes so often again."""
    last = _PROGRESSIVE[_PROGRESSIVE.rindex(b"\xff\xda") : -2]
    return _PROGRESSIVE[:-2] + count * last + _PROGRESSIVE[-2:]


@pytest.mark.parametrize("small", [small_picture(photo(1)), _PROGRESSIVE])
def test_small_pictures_are_read(small: bytes) -> None:
    assert detect(_MARKED, replace(_REGISTRATION, small=small)).marked


@pytest.mark.parametrize(
    "small",
    [
        b"no picture",
        small_picture(photo(1))[:100],
        encoded(photo(1), "PNG")[:200_000],
        encoded(np.zeros((16, MAX_SIDE + 1, 3), np.uint8), "JPEG"),
        encoded(np.zeros((10_000, 10_000, 3), np.uint8), "JPEG", quality=1)[:200_000],
        with_scans(20),
    ],
    ids=["no picture", "cut", "PNG", "too long", "too large", "scans"],
)
def test_small_pictures_that_are_none_or_cost_much_are_refused(small: bytes) -> None:
    with pytest.raises(RegistrationInvalid) as refused:
        detect(_MARKED, replace(_REGISTRATION, small=small))
    assert refused.value.code == "registration_damaged"
