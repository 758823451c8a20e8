"""The free watermarks that are used today, with 32 bits: invisible-watermark (its three methods) and blind-watermark.

Both ask for opencv-python, which carries the same module as the headless wheel; they are therefore installed without what they ask for,
into a folder of their own, and take what is here. Each is seeded by its own defaults; the reader is told how many bits there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from matcher.pixels import U8

BITS: Final = 32
RIVAGAN: Final = "invisible-watermark rivaGan"
Bits = npt.NDArray[np.bool_]


class Peer(NamedTuple):
    """`mark` puts bits into a picture, `read` takes them out; `read` raises whatever the library raises where it sees none."""

    mark: Callable[[U8, Bits], U8]
    read: Callable[[U8], Bits]


def see_contrib(folder: str) -> None:
    """From now on what is not installed here is taken from that folder."""
    if folder not in sys.path:
        sys.path.append(folder)


def peer(name: str) -> Peer:
    """Raises ModuleNotFoundError where it is not installed."""
    return PEERS[name]()


def bits(name: str) -> Bits:
    """Those that a picture of that name gets."""
    return np.unpackbits(np.frombuffer(hashlib.sha256(name.encode()).digest()[: BITS // 8], np.uint8)).astype(bool)


def _invisible(method: str) -> Peer:
    encoder, decoder = _imwatermark()
    if method == "rivaGan":
        encoder.loadModel()

    def mark(rgb: U8, given: Bits) -> U8:
        made = encoder()
        made.set_watermark("bits", given.astype(int).tolist())
        return _rgb(made.encode(_bgr(rgb), method))

    return Peer(mark, lambda rgb: np.asarray(decoder("bits", BITS).decode(_bgr(rgb), method), bool))


def _blind() -> Peer:
    library = _blind_watermark()

    def mark(rgb: U8, given: Bits) -> U8:
        made = library.WaterMark()
        made.read_img(img=_bgr(rgb))
        made.read_wm(given.copy(), mode="bit")
        return _rgb(np.rint(made.embed()))

    return Peer(mark, lambda rgb: np.asarray(library.WaterMark().extract(embed_img=_bgr(rgb), wm_shape=BITS, mode="bit"), bool))


@lru_cache
def _imwatermark() -> tuple[Any, Any]:
    sys.modules.setdefault("torch", _torch())
    import imwatermark

    return imwatermark.WatermarkEncoder, imwatermark.WatermarkDecoder


@lru_cache
def _blind_watermark() -> Any:
    with _start_method_unset():
        import blind_watermark
    blind_watermark.bw_notes.close()
    return blind_watermark


@contextlib.contextmanager
def _start_method_unset() -> Iterator[None]:
    """blind-watermark sets how processes start while it is imported, which fails where somebody did before."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(None, force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


class _Tensor:
    """The few operations of torch's tensors that invisible-watermark uses around its models, on an array: ONNX Runtime does the rest."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array

    def __truediv__(self, by: float) -> _Tensor:
        return _Tensor(self._array / np.float32(by))

    def __mul__(self, by: float) -> _Tensor:
        return _Tensor(self._array * np.float32(by))

    def __add__(self, what: float) -> _Tensor:
        return _Tensor(self._array + np.float32(what))

    def __sub__(self, what: float) -> _Tensor:
        return _Tensor(self._array - np.float32(what))

    def __getitem__(self, where: Any) -> _Tensor:
        return _Tensor(self._array[where])

    def permute(self, *axes: int) -> _Tensor:
        return _Tensor(self._array.transpose(axes))

    def unsqueeze(self, axis: int) -> _Tensor:
        return _Tensor(np.expand_dims(self._array, axis))

    def detach(self) -> _Tensor:
        return self

    def cpu(self) -> _Tensor:
        return self

    def numpy(self) -> npt.NDArray[Any]:
        return self._array

    def clip(self, least: float, most: float) -> _Tensor:
        return _Tensor(self._array.clip(least, most))


def _torch() -> types.ModuleType:
    """Instead of some gigabytes."""
    made: Any = types.ModuleType("torch")
    made.from_numpy = _Tensor
    made.clamp = lambda tensor, min, max: tensor.clip(min, max)
    return made  # type: ignore[no-any-return]


def _bgr(rgb: U8) -> U8:
    return np.ascontiguousarray(rgb[..., ::-1])


def _rgb(bgr: npt.NDArray[Any]) -> U8:
    return np.ascontiguousarray(np.clip(bgr, 0, 255).astype(np.uint8)[..., ::-1])


PEERS: Final[Mapping[str, Callable[[], Peer]]] = {
    "invisible-watermark dwtDct": partial(_invisible, "dwtDct"),
    "invisible-watermark dwtDctSvd": partial(_invisible, "dwtDctSvd"),
    RIVAGAN: partial(_invisible, "rivaGan"),
    "blind-watermark": _blind,
}
