"""The matcher's process: images as a member of a group; searches, what was registered since, news of it, and snapshots on threads of
their own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import cv2
import faiss

from core.monitor import end
from core.services import Services
from core.shards import Shard
from matcher import following, images, matching, searching, snapshots
from matcher.crawled import registrations
from matcher.crawled.library import CrawledLibrary
from matcher.decode import Decoders
from matcher.member import Stopped, patiently
from matcher.pipeline import Pipeline
from matcher.registry import LOOP, Registry


def run(services: Services, stop: threading.Event) -> None:
    """Works until `stop` is set."""
    # one picture at a time per thread: the libraries' own threads would only wait for each other, busily
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(1)
    with suppress(Stopped):
        shard = Shard(services.settings.registry_shard, services.settings.registry_shards)
        registry = patiently(lambda: snapshots.load(services, shard), stop, LOOP)
        patiently(registry.catch_up_all, stop, LOOP)
        end(LOOP)
        _run(services, registry, stop)


def _run(services: Services, registry: Registry, stop: threading.Event) -> None:
    pipeline, library = Pipeline(registry), CrawledLibrary(services)
    with ThreadPoolExecutor(5, thread_name_prefix="beside") as threads, Decoders(1) as asked, Decoders(1) as registered:
        beside = [
            threads.submit(searching.run, services, pipeline, library, asked, stop),
            threads.submit(registrations.run, services, registry, pipeline, library, registered, stop),
            threads.submit(following.run, services, registry, stop),
            threads.submit(snapshots.run, services, registry, stop),
        ]
        if not registry.shard.alone:
            beside.append(threads.submit(matching.run, services, pipeline, stop))
        for part in beside:
            part.add_done_callback(lambda _: stop.set())  # whatever ended one part ends the others; a new process is another try
        try:
            images.run(services, pipeline, stop)
        finally:
            stop.set()
            asked.abandon()
            registered.abandon()
        for part in beside:
            part.result()
