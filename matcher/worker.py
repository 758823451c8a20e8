"""The matcher's process: images as a member of a group; searches, and what was registered since, on threads of their own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import faiss

from core.services import Services
from matcher import images, searching
from matcher.crawled import registrations
from matcher.crawled.library import CrawledLibrary
from matcher.decode import Decoders
from matcher.pipeline import Pipeline
from matcher.registry import Registry


def run(services: Services, stop: threading.Event) -> None:
    """Works until `stop` is set."""
    # one picture at a time per thread: the libraries' own threads would only wait for each other, busily
    cv2.setNumThreads(1)
    faiss.omp_set_num_threads(1)
    registry = Registry(services)
    pipeline = Pipeline(registry)
    library = CrawledLibrary(services)
    with ThreadPoolExecutor(2, thread_name_prefix="beside") as threads, Decoders(1) as asked, Decoders(1) as registered:
        beside = [
            threads.submit(searching.run, services, pipeline, library, asked, stop),
            threads.submit(registrations.run, services, registry, pipeline, library, registered, stop),
        ]
        for part in beside:
            part.add_done_callback(lambda _: stop.set())  # whatever ended one part ends the others; a new process is another try
        try:
            images.run(services, registry, pipeline, stop)
        finally:
            stop.set()
            asked.abandon()
            registered.abandon()
        for part in beside:
            part.result()
