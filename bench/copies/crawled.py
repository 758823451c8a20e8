"""Crawled pictures: what one costs to keep, and what a new registration, a search and a merge take among 10 thousand to a million.

A few are real: attacked copies of the pictures that are registered, stored as crawls store them, and read to be verified. The others are
synthetic: features of real pictures with some bits of their codes turned, at places drawn anew. Figures are processor time of one thread,
decoding included; the real time of the same work, which other processes lengthen, stands beside it.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image
from sqlalchemy import func, select
from structlog.testing import capture_logs

from bench.copies import queries
from bench.copies.run import Run, spread_out
from bench.copies.sets import Picture, Sets
from bench.copies.work import tell
from core.events import ImageFound, SearchAsked, Sighting, StoredAt
from core.models import Match
from core.repo import accounts, crawled, crawls
from core.services import Services
from core.settings import Settings
from matcher.copies.codes import U64, encode
from matcher.copies.features import INDEXED, Fingerprint, fingerprint
from matcher.copies.segment import Segment
from matcher.copies.sift import DIMENSIONS
from matcher.copies.votes import PLACE
from matcher.crawled import file
from matcher.crawled.file import PictureFile
from matcher.crawled.library import CrawledLibrary
from matcher.crawled.registrations import Registrations
from matcher.crawled.searching import WebSearch
from matcher.crawled.table import CrawledPicture
from matcher.crawled.writer import CrawledWriter
from matcher.decode import Decoders, read_pixels, read_print
from matcher.pipeline import Pipeline
from matcher.pixels import U8
from matcher.registrar import prepare, register
from matcher.registry import Registry
from scheduler.crawled import FAN, MOST

SIZES: Final = (10_000, 100_000, 1_000_000)
_QUICK: Final = (1_000, 10_000)
_TURNED: Final = 6
"""Bits of a code that are turned: the same feature under another light."""
_REGISTERED: Final = 2
"""Pictures that are registered at each size."""
_POLL: Final = 64
_NOW: Final = datetime(2026, 11, 1, tzinfo=UTC)


class _Here(Decoders):
    """Decodes in this process, whose time is taken."""

    def fingerprint(self, data: bytes) -> Fingerprint:
        return read_print(data)

    def pixels(self, data: bytes) -> U8:
        return read_pixels(data)


def run(run: Run) -> dict[str, Any]:
    cv2.setNumThreads(1)
    sizes = _QUICK if run.quick else SIZES
    pictures = spread_out(run.sets.registered, _REGISTERED * len(sizes))
    found = queries.ask(Sets(pictures, ()), queries.own, run.attacks, run.cache)
    noise = _Noise([encode(fingerprint(picture.load()).descriptors[:INDEXED]).codes for picture in run.sets.distractors])
    # synthetic pictures have no bytes, and each that is looked at would be a line
    with capture_logs(), tempfile.TemporaryDirectory() as folder, Services.open(Settings(data=Path(folder))) as services:
        crawl = _Crawl(services)
        result: dict[str, Any] = {"real": len(found), "attacks": len(run.attacks)} | crawl.write([query.path for query in found])
        result["rows"] = []
        for number, size in enumerate(sizes):
            tell(f"{size:,} crawled pictures")
            row = {"crawled": size} | crawl.fill(size, noise)
            mine = {picture.name: _jpeg(picture) for picture in pictures[_REGISTERED * number : _REGISTERED * (number + 1)]}
            result["rows"].append(row | crawl.search(list(mine.values())) | crawl.register(mine))
    tell("merging crawled pictures")
    return result | _merging(noise, MOST // (8 if run.quick else 1))


class _Noise:
    """Synthetic pictures, made of these codes (n uint64 of each real picture)."""

    def __init__(self, codes: Sequence[U64]) -> None:
        self._codes = np.concatenate(codes)
        self._draw = np.random.default_rng(0)
        self._made = 0

    def file(self, pictures: int) -> bytes:
        entries = pictures * INDEXED
        codes = self._draw.choice(self._codes, entries)
        for _ in range(_TURNED):
            codes ^= np.uint64(1) << self._draw.integers(0, 64, entries, np.uint64)
        where = np.zeros(entries, PLACE)
        where["picture"] = np.repeat(np.arange(pictures, dtype=np.uint32), INDEXED)
        for name in ("x", "y", "angle"):
            where[name] = self._draw.integers(0, 256, entries)
        where["size"] = self._draw.integers(16, 80, entries)
        looks = self._draw.integers(0, 90, (pictures, DIMENSIONS), np.uint8)
        return file.assembled([self._row() for _ in range(pictures)], looks, Segment.of(pictures, codes, where))

    def _row(self) -> CrawledPicture:
        """Its address and page are as long as real ones."""
        self._made += 1
        digest = hashlib.sha256(self._made.to_bytes(8)).digest()
        url = f"https://images.site.example/media/2026/11/{digest[:8].hex()}-1280x853.jpg"
        page = f"https://www.site.example/news/2026/11/a-headline-of-the-usual-length-{self._made % 5000}.html"
        place = (self._made // 100, f"crawl/1/2/1/{self._made // 100:06d}.tar", 512, 120_000)
        seen = (_NOW, _NOW, digest[:16].hex(), ((page, "a few words about the picture"),))
        return CrawledPicture(digest, digest[:16], url, "image/jpeg", 1, 1, place, *seen, (1280, 853))


class _Crawl:
    """An account that has crawled."""

    def __init__(self, services: Services) -> None:
        self._services = services
        with services.database.write() as tx:
            self._account, _ = accounts.create(tx, services.settings.secret, "anna", now=_NOW)
            site = "site.example"
            self._session = crawls.create_session(tx, self._account.id, start_urls=[f"http://{site}/"], domain=site, now=_NOW).id
        registry, self._library, decoders = Registry(services), CrawledLibrary(services), _Here(1)
        self._registrations = Registrations(services, registry, Pipeline(registry), self._library, decoders, threading.Event())
        self._web = WebSearch(services, self._library, decoders)
        self._kept = 0

    def write(self, paths: Sequence[Path]) -> dict[str, Any]:
        """Real pictures, as a matcher writes them."""
        events = [self._stored(path.read_bytes(), number) for number, path in enumerate(paths)]
        prints = [read_print(path.read_bytes()) for path in paths]
        writer, begun = CrawledWriter(self._services), time.process_time()
        for start in range(0, len(events), _POLL):
            poll = zip(events[start : start + _POLL], prints[start : start + _POLL], strict=True)
            writer.store([writer.found(event, print_) for event, print_ in poll])
        self._kept = len(paths)
        return {"write_ms": 1e3 * (time.process_time() - begun) / max(1, len(paths))}

    def _stored(self, data: bytes, number: int) -> ImageFound:
        key = f"crawl/{self._session}/1/1/{number:06d}.tar"
        self._services.store.put(key, data)
        digests = hashlib.sha256(data).hexdigest(), hashlib.md5(data, usedforsecurity=False).hexdigest()
        pages = (Sighting(f"http://site.example/{number}"),)
        place = StoredAt(number, key, 0, len(data))
        url = f"http://site.example/{number}.jpg"
        return ImageFound(
            self._account.id, 0, self._session, 1, 1, False, url, *digests, "image/jpeg", place, _NOW, f"{number:032x}", pages
        )

    def fill(self, size: int, noise: _Noise) -> dict[str, Any]:
        """Synthetic pictures until there are so many, in files as merges leave them."""
        while self._kept < size:
            count = min(MOST, size - self._kept)
            data, key = noise.file(count), f"{crawled.PREFIX}{self._session}/{self._kept}"
            self._services.store.put(key, data)
            draft = file.draft(self._session, key, data, count, _NOW)
            self._services.database.transact(partial(crawled.add, drafts=[draft], now=_NOW))
            self._kept += count
        wall, cpu = _timed(lambda: self._library.visible(self._account.id))
        with self._services.database.read() as tx:
            files, _, total = crawled.totals(tx)
        return {"files": files, "bytes": round(total / size), "open_s": wall, "open_cpu_s": cpu}

    def search(self, datas: Sequence[bytes]) -> dict[str, Any]:
        """category=web, the second time for each file: the first reads its pages from the disk."""
        prints = [read_print(data) for data in datas]
        asked = SearchAsked("s", self._account.id, 0, "queries/s", "affine", False, _NOW, "p", "r", "web")
        self._web.search(asked, prints[0])
        taken = [_timed(partial(self._web.search, asked, print_)) for print_ in prints]
        similar = SearchAsked("s", self._account.id, 0, "queries/s", "affine", True, _NOW, "p", "r", "web")
        only = [_timed(partial(self._web.search, similar, print_)) for print_ in prints]
        hits = [len(self._web.search(asked, print_)) for print_ in prints]
        return {
            "search_ms": 1e3 * min(cpu for _, cpu in taken),
            "search_wall_ms": 1e3 * min(wall for wall, _ in taken),
            "similar_ms": 1e3 * min(cpu for _, cpu in only),
            "hits": hits,
        }

    def register(self, originals: Mapping[str, bytes]) -> dict[str, Any]:
        """From the commit of one registration until its matches are recorded."""
        before, taken = self._matches(), []
        for name, data in originals.items():
            register(self._services, self._account.id, f"{self._account.home}/{name}", prepare(data), disk_usage=len(data))
            taken.append(_timed(self._registrations.turn))
        return {
            "register_s": max(cpu for _, cpu in taken),
            "register_wall_s": max(wall for wall, _ in taken),
            "matches": (self._matches() - before) / len(originals),
        }

    def _matches(self) -> int:
        with self._services.database.read() as tx:
            return tx.scalar(select(func.count()).select_from(Match)) or 0


def _merging(noise: _Noise, pictures: int) -> dict[str, Any]:
    """As many files of one size as are merged at once."""
    parts = [PictureFile(memoryview(noise.file(pictures // FAN))) for _ in range(FAN)]
    wall, cpu = _timed(lambda: file.merged(parts))
    return {"merged": pictures, "merge_s": cpu, "merge_wall_s": wall}


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """(real time, processor time) in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _jpeg(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture.load()).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def markdown(result: Mapping[str, Any]) -> list[str]:
    head = (
        f"{result['real']} real pictures ({result['attacks']} attacks), the others synthetic: real features, changed. CPU time of one "
        "thread; in brackets real time, while other work ran beside it."
    )
    rows = [
        f"| {r['crawled']:,} | {r['files']} | {r['bytes']:,} | {r['open_cpu_s']:.2f} ({r['open_s']:.2f}) | {r['similar_ms']:.0f} | "
        f"{r['search_ms']:.0f} ({r['search_wall_ms']:.0f}) | {', '.join(map(str, r['hits']))} | "
        f"{r['register_s']:.2f} ({r['register_wall_s']:.2f}) | {r['matches']:g} |"
        for r in result["rows"]
    ]
    return [
        head,
        "",
        "| crawled | files | bytes per picture | opening new files, s | similar, ms | search, ms | hits | new registration, s | matches |",
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Writing: {result['write_ms']:.2f} ms per picture. Merging {FAN} files into one of {result['merged']:,} pictures: "
        f"{result['merge_s']:.1f} s ({result['merge_wall_s']:.1f}).",
    ]
