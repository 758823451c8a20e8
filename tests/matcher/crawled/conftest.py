from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from core.services import Services
from matcher.crawled.library import CrawledLibrary
from matcher.crawled.registrations import Registrations
from matcher.crawled.searching import WebSearch
from matcher.decode import Decoders
from matcher.images import Images
from matcher.pipeline import Pipeline
from matcher.registry import Registry
from tests.matcher.crawled.crawls import Crawls


@pytest.fixture
def crawls(services: Services, decoders: Decoders) -> Iterator[Crawls]:
    registry, library, stop = Registry(services), CrawledLibrary(services), threading.Event()
    pipeline = Pipeline(registry)
    images = Images(services, pipeline, decoders, stop)
    registrations = Registrations(services, registry, pipeline, library, decoders, stop)
    yield Crawls(services, images, library, registrations, WebSearch(services, library, decoders))
    images.close()
