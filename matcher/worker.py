"""The matcher's process: images as a member of a group, searches on a thread of their own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import faiss

from core.services import Services
from matcher import images, searching
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
    with ThreadPoolExecutor(1, thread_name_prefix="searches") as threads, Decoders(1) as decoders:
        searches = threads.submit(searching.run, services, pipeline, decoders, stop)
        searches.add_done_callback(lambda _: stop.set())  # whatever ended one half ends the other; a new process is another try
        try:
            images.run(services, registry, pipeline, stop)
        finally:
            stop.set()
            decoders.abandon()
        searches.result()
