"""What is compared: filigrane's mark in its forms, and the peers. Each marks a picture and says what it reads in another one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

import matcher.copies
import matcher.watermark
from bench.copies import attacks as steps
from bench.watermark import attacks, peers, quality
from bench.watermark.keeping import version
from matcher import pixels
from matcher.pixels import U8, resized
from matcher.watermark.detect import detect
from matcher.watermark.embed import add, draw

ZERO_BIT: Final = "filigrane"
PAYLOAD: Final = "filigrane, 24 bits"
STRENGTHS: Final = (0.25, 0.5, 2.0)
SMALL_SIDE: Final = 400
"""Pixels of the longer side, where rivaGan is asked: it takes seconds for each megapixel."""
_LEAST_P: Final = 5e-324


class Found(NamedTuple):
    """`right`: the mark was found and says what it should; `wrong`: it was found and says something else; `log_p`: -log10 of the p-value,
    of methods that give one; `aligned`: whether the picture was found at all."""

    right: bool
    wrong: bool
    log_p: float | None = None
    aligned: bool = True


class Marked(NamedTuple):
    rgb: U8
    read: Callable[[U8], Found]


class Method(NamedTuple):
    """`mark`: (picture, its name, which seeds key and payload) -> the marked one; `version` changes with whatever decides the results;
    `side`: pixels of the longer side that pictures are brought to first (0: as they are)."""

    mark: Callable[[U8, str], Marked]
    version: str
    side: int = 0

    def prepared(self, rgb: U8) -> U8:
        return resized(rgb, self.side) if self.side and max(rgb.shape[:2]) > self.side else rgb


def key_of(name: str) -> bytes:
    return hashlib.sha256(f"key of {name}".encode()).digest()


def payload_of(name: str) -> int:
    """24 bits."""
    return int.from_bytes(hashlib.sha256(f"payload of {name}".encode()).digest()[:3], "big")


def _filigrane(rgb: U8, name: str, *, carries: bool = False, times: float = 1.0) -> Marked:
    """`times` the change that the default makes: only a measurement asks for another one."""
    payload = payload_of(name) if carries else None
    change, registration = draw(rgb, key=key_of(name), payload=payload)

    def read(query: U8) -> Found:
        found = detect(query, registration)
        says_so = found.payload == payload
        wrong = found.marked and not says_so and found.payload is not None
        return Found(found.marked and says_so, wrong, -math.log10(max(found.p_value, _LEAST_P)), found.transform is not None)

    return Marked(add(rgb, np.float32(times) * change), read)


def _peer(rgb: U8, name: str, *, peer: str) -> Marked:
    given, library = peers.bits(name), peers.peer(peer)

    def read(query: U8) -> Found:
        try:
            right = bool(np.array_equal(library.read(query), given))
        except Exception:  # each says in its own way that a picture is too small for it
            return Found(False, False)
        return Found(right, not right)

    return Marked(library.mark(rgb, given), read)


@lru_cache
def methods() -> Mapping[str, Method]:
    own, theirs = version([Path(__file__), *_own_sources()]), version(_sources(peers))
    made = {
        ZERO_BIT: Method(_filigrane, own),
        PAYLOAD: Method(partial(_filigrane, carries=True), own),
        f"{PAYLOAD}, {SMALL_SIDE} px": Method(partial(_filigrane, carries=True), own, SMALL_SIDE),
        **{f"{ZERO_BIT}, strength x {times:g}": Method(partial(_filigrane, times=times), own) for times in STRENGTHS},
    }
    for name in peers.PEERS:
        made[name] = Method(partial(_peer, peer=name), theirs, SMALL_SIDE if name == peers.RIVAGAN else 0)
    return made


def _own_sources() -> list[Path]:
    packages = (Path(package.__path__[0]) for package in (matcher.copies, matcher.watermark))
    code = sorted(path for folder in packages for path in folder.rglob("*") if path.suffix in (".py", ".c", ".h", ".npz"))
    return [*code, *_sources(pixels)]


def _sources(*modules: object) -> list[Path]:
    return [Path(str(module.__file__)) for module in (*modules, attacks, steps, quality)]  # type: ignore[attr-defined]
