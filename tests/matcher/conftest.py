from __future__ import annotations

from collections.abc import Iterator

import pytest

from matcher.decode import Decoders, Limits


@pytest.fixture(scope="session")
def decoders() -> Iterator[Decoders]:
    """One worker process for all tests."""
    with Decoders(1, Limits(length=8 << 20, pixels=4_000_000, seconds=20, memory=1 << 30)) as pool:
        yield pool
