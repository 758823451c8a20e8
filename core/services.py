"""Everything that a process needs from outside, opened once: settings, database, object store, bus and clock."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sqlalchemy import URL

from core import highwater
from core.bus import Bus
from core.bus.embedded import EmbeddedBus
from core.clock import Clock, SystemClock
from core.database import Database
from core.disk import private_folder
from core.errors import InvalidInput
from core.metered import metered
from core.objectstore import ObjectStore
from core.objectstore.folder import FolderStore
from core.settings import Settings, load


@dataclass(frozen=True, slots=True)
class Services:
    """What `open` found behind the settings. One per process, closed at its end."""

    settings: Settings
    database: Database
    store: ObjectStore
    bus: Bus
    clock: Clock

    @classmethod
    def open(cls, settings: Settings | None = None, *, clock: Clock | None = None, restored: bool = False) -> Self:
        """Opens the parts and brings the database's schema up to date.

        `restored`: also where the database is older than what the store has seen of it, which is the doctor's to reconcile.

        Raises:
            InvalidInput: a setting is wrong.
            Unavailable: a part does not answer; `database_restored`.
        """
        settings, clock = settings or load(), clock or SystemClock()
        _make_folder(settings.data)
        with ExitStack() as opened:
            database = open_database(settings)
            opened.callback(database.close)
            database.migrate()
            store = open_store(settings)
            opened.callback(store.close)
            if not restored:
                highwater.check(database, store, clock.now())
            services = cls(settings, database, store, open_bus(settings), clock)
            opened.pop_all()
        return services

    def close(self) -> None:
        self.bus.close()
        self.store.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _make_folder(path: Path) -> None:
    try:
        private_folder(path)
    except OSError as error:
        raise InvalidInput(f"FILIGRANE_DATA: the folder {path} cannot be made: {error.strerror}", code="settings_invalid") from error


def open_database(settings: Settings) -> Database:
    """Its schema is as it was found."""
    url = settings.database_url or URL.create("sqlite", database=str(settings.data / "filigrane.sqlite"))
    return metered("database", Database(url, connections=settings.database_connections))


def open_store(settings: Settings) -> ObjectStore:
    return metered("store", _store(settings))


def open_bus(settings: Settings) -> Bus:
    return metered("bus", _bus(settings))


def _store(settings: Settings) -> ObjectStore:
    address = urlsplit(settings.store_url)
    if address.scheme == "s3":
        from core.objectstore.s3 import S3Store  # who keeps objects in a folder need not load boto3

        return S3Store(address.netloc, address.path.strip("/"), endpoint_url=settings.s3_endpoint_url)
    root = Path(url2pathname(address.path)) if settings.store_url else settings.data / "objects"
    return FolderStore(root, public_url=settings.public_url, secret=settings.secret)


def _bus(settings: Settings) -> Bus:
    if settings.bus_url.startswith("kafka://"):
        from core.bus.kafka import KafkaBus  # who needs no Kafka does not pay for its client

        return KafkaBus(
            settings.bus_url.removeprefix("kafka://"),
            partitions=settings.topic_partitions,
            prefix=settings.topic_prefix,
            options=settings.kafka_options,
            api_version=settings.kafka_api_version,
        )
    return EmbeddedBus(settings.data / "bus.sqlite", partitions=settings.topic_partitions)
