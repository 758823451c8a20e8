"""Each picture marked by each method, attacked in each way, and read again. What was tried is kept: a run that was cut goes on there."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, TextIO, TypeVar

import cv2

from bench.copies.queries import stem
from bench.copies.sets import Picture
from bench.copies.work import spread
from bench.watermark.attacks import ATTACKS, EXTREMES
from bench.watermark.methods import Marked, methods
from bench.watermark.peers import see_contrib
from bench.watermark.quality import psnr, ssim_rgb
from matcher.pixels import U8


@dataclass(frozen=True, slots=True)
class Quality:
    """Of one marked picture; `seconds` of processor time that marking took."""

    picture: str
    psnr: float
    ssim: float
    seconds: float
    megapixels: float


@dataclass(frozen=True, slots=True)
class Trial:
    """What was read in one attacked picture; `seconds` of processor time for a query of `megapixels`."""

    picture: str
    attack: str
    right: bool
    wrong: bool
    log_p: float | None
    aligned: bool
    seconds: float
    megapixels: float


Record = TypeVar("Record", Quality, Trial)


class Trials(NamedTuple):
    method: str
    marked: list[Quality]
    tried: list[Trial]

    @property
    def suite(self) -> list[Trial]:
        """Without the extremes."""
        return [trial for trial in self.tried if trial.attack in ATTACKS]

    def share(self, attack: str | None = None) -> float:
        """Of what was read rightly, over one attack or the suite."""
        found = [t.right for t in self.tried if t.attack == attack] if attack else [t.right for t in self.suite]
        return sum(found) / len(found) if found else float("nan")


class Task(NamedTuple):
    """One picture; `cache`: the folder of the method and its version."""

    method: str
    picture: Picture
    attacks: tuple[str, ...]
    cache: Path


def attempt(method: str, pictures: Sequence[Picture], attacks: Sequence[str], cache: Path, contrib: Path) -> Trials:
    """On a few processes. Raises ModuleNotFoundError where a peer is not installed."""
    folder = cache / f"{re.sub('[^a-z0-9.]+', '-', method.lower())}-{methods()[method].version}"
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [Task(method, picture, tuple(attacks), folder) for picture in pictures]
    found = spread(tried_on, tasks, method, _open, str(contrib))
    return Trials(method, [quality for quality, _ in found], [trial for _, tried in found for trial in tried])


def _open(contrib: str) -> None:
    cv2.setNumThreads(1)
    see_contrib(contrib)


def tried_on(task: Task) -> tuple[Quality, list[Trial]]:
    """What an earlier run kept, and what it had not tried yet."""
    kept = task.cache / f"{stem(task.picture)}.jsonl"
    lines = _whole_lines(kept)
    tried = {line["attack"]: Trial(**line) for line in map(json.loads, lines[1:])}
    missing = [name for name in task.attacks if name not in tried]
    if missing or not lines:
        kept.write_text("".join(lines))
        with kept.open("a", buffering=1) as file:
            marked = _mark(task, file, known=bool(lines))
            tried |= {name: _kept(file, _read(marked, task.picture.name, name)) for name in missing}
    return Quality(**json.loads(_whole_lines(kept)[0])), [tried[name] for name in task.attacks]


def _whole_lines(kept: Path) -> list[str]:
    """What an earlier run wrote; a line that was cut is none."""
    lines = kept.read_text().splitlines(keepends=True) if kept.exists() else []
    return [line for line in lines if line.endswith("\n")]


def _mark(task: Task, file: TextIO, *, known: bool) -> Marked:
    """The marked picture, whose quality is written unless it is `known`."""
    method = methods()[task.method]
    rgb = method.prepared(task.picture.load())
    begun = time.process_time()
    marked = method.mark(rgb, task.picture.name)
    seconds = time.process_time() - begun
    if not known:
        _kept(file, Quality(task.picture.name, psnr(rgb, marked.rgb), ssim_rgb(rgb, marked.rgb), seconds, _megapixels(rgb)))
    return marked


def _kept(file: TextIO, what: Record) -> Record:
    """It is written as soon as it is known."""
    file.write(json.dumps(asdict(what)) + "\n")
    return what


def _read(marked: Marked, name: str, attack: str) -> Trial:
    query = attacked(marked.rgb, name, attack)
    begun = time.process_time()
    found = marked.read(query)
    seconds = time.process_time() - begun
    return Trial(name, attack, *found, seconds, _megapixels(query))


def attacked(rgb: U8, name: str, attack: str) -> U8:
    return {**ATTACKS, **EXTREMES}[attack](rgb, name)


def _megapixels(rgb: U8) -> float:
    return float(rgb.shape[0] * rgb.shape[1] / 1e6)
