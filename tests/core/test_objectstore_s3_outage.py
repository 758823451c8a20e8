"""S3 servers that are killed, absent, full, or that do not know us: nothing torn, nothing lost, and recovery without a hand."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from core.errors import InvalidInput, ObjectMissing, Unavailable
from core.objectstore.s3 import S3Store, connection
from tests.conftest import needed
from tests.servers import s3

MB = 1 << 20


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.Versitygw]:
    """A server of the test's own, which it may kill."""
    needed("s3", s3.versitygw)
    with s3.Versitygw(tmp_path / "server") as running:
        for name, value in running.bucket().credentials().items():
            monkeypatch.setenv(name, value)
        yield running


def opened(bucket: s3.Bucket) -> S3Store:
    return S3Store(bucket.name, "test", endpoint_url=bucket.endpoint)


# --- G05, C08: kill -9 of the server


class Writer(threading.Thread):
    """Puts, replaces, uploads in parts and joins, over and over, and keeps a ledger."""

    def __init__(self, store: S3Store, seed: int) -> None:
        super().__init__(daemon=True)
        self._store = store
        self._source = random.Random(seed)
        self.acknowledged: dict[str, bytes] = {}
        """Key -> SHA-256 of what was put last."""
        self.meant: dict[str, set[bytes]] = {}
        """Key -> SHA-256 of everything that was ever put under it."""
        self.rounds = 0
        self.enough = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.enough.is_set():
                self._round()
                self.rounds += 1
        except BaseException as error:
            self.error = error

    def _round(self) -> None:
        number = self.rounds
        self._put(f"small/{number}", self._source.randbytes(self._source.randrange(200_000)))
        self._put("replaced", self._source.randbytes(1000))
        if number % 3 == 0:
            self._put("large", self._source.randbytes(17 * MB))
        parts = [self._source.randbytes(6 * MB), self._source.randbytes(1000), self._source.randbytes(11 * MB)]
        for each, data in enumerate(parts):
            self._put(f"part/{each}", data)
        self._note("joined", b"".join(parts))
        self._again(lambda: self._store.join([f"part/{each}" for each in range(3)], "joined"))
        self.acknowledged["joined"] = hashlib.sha256(b"".join(parts)).digest()

    def _put(self, key: str, data: bytes) -> None:
        self._note(key, data)
        self._again(lambda: self._store.put(key, data))
        self.acknowledged[key] = hashlib.sha256(data).digest()

    def _note(self, key: str, data: bytes) -> None:
        self.meant.setdefault(key, set()).add(hashlib.sha256(data).digest())

    def _again(self, action: object) -> None:
        for _ in range(10):
            try:
                action()  # type: ignore[operator]
                return
            except Unavailable as error:
                last = error
        raise last


class Reader(threading.Thread):
    """Looks at the joined object all the time. Whatever it sees must be one of the wholes that were meant."""

    def __init__(self, store: S3Store, writer: Writer) -> None:
        super().__init__(daemon=True)
        self._store = store
        self._writer = writer
        self.seen = 0
        self.wrong: list[str] = []
        self.enough = threading.Event()

    def run(self) -> None:
        while not self.enough.is_set():
            try:
                data = b"".join(self._store.stream("joined"))
            except (ObjectMissing, Unavailable):
                continue
            self.seen += 1
            if hashlib.sha256(data).digest() not in self._writer.meant["joined"]:
                self.wrong.append(f"{len(data)} bytes of none that was ever put")


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 100))]


@pytest.mark.parametrize("seed", SEEDS)
def test_g05_c08_the_server_is_killed_while_it_is_written_to(
    seed: int, server: s3.Versitygw, record_property: Callable[[str, object], None]
) -> None:
    """G05, C08: an S3 server that is killed while it is written to: 0 torn, 0 lost, 0 stale; a reader sees only wholes."""
    bucket = server.bucket()
    store = opened(bucket)
    writer = Writer(store, seed)
    reader = Reader(opened(bucket), writer)
    writer.start()
    reader.start()
    _until(lambda: writer.rounds >= 1 and reader.seen >= 1, writer)
    time.sleep(random.Random(seed).uniform(0, 0.5))  # the moment of the kill; no verdict rests on it
    server.kill()
    rounds = writer.rounds
    server.launch()
    _until(lambda: writer.rounds >= rounds + 1, writer)
    writer.enough.set()
    writer.join(60)
    reader.enough.set()
    reader.join(60)

    assert writer.error is None
    assert reader.wrong == []
    lost = [key for key, digest in writer.acknowledged.items() if hashlib.sha256(store.get(key)).digest() != digest]
    record_property("acknowledged", len(writer.acknowledged))
    record_property("lost", len(lost))
    assert lost == [], "lost, torn or stale"
    for info in store.list(""):
        assert hashlib.sha256(store.get(info.key)).digest() in writer.meant[info.key], f"{info.key} is torn"


def _until(met: object, writer: Writer) -> None:
    deadline = time.monotonic() + 60
    while not met():  # type: ignore[operator]
        assert writer.error is None, writer.error
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- absent, unknown, full


def test_a_server_that_is_absent_at_the_start(server: s3.Versitygw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TRIES", 3)
    bucket = server.bucket()
    server.kill()
    store = opened(bucket)
    with pytest.raises(Unavailable) as caught:
        store.put("a", b"1")
    assert caught.value.code == "store_unavailable"
    assert bucket.endpoint in caught.value.details
    server.launch()
    store.put("a", b"1")
    assert store.get("a") == b"1"


def test_a_bucket_that_does_not_exist(server: s3.Versitygw) -> None:
    bucket = replace(server.bucket(), name="nobody-made-this")
    store = opened(bucket)
    for action in (lambda: store.put("a", b"1"), lambda: store.get("a"), lambda: store.head("a"), lambda: list(store.list(""))):
        with pytest.raises(Unavailable) as caught:
            action()
        assert caught.value.code == "store_no_bucket"
        assert "create-bucket --bucket nobody-made-this" in caught.value.details
    bucket.client().create_bucket(Bucket=bucket.name)
    store.put("a", b"1")


def test_credentials_that_are_changed(server: s3.Versitygw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server takes another key; once the file of the credentials has it too, all is well, without a new start."""
    bucket = server.bucket()
    store = opened(bucket)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    _write_credentials(file, bucket.secret_key)
    store.put("a", b"1")
    server.stop()
    server.secret_key = "another-secret-of-nobody"
    del server.client
    server.launch()
    for action in (lambda: store.put("a", b"2"), lambda: store.get("a"), lambda: store.head("a"), lambda: store.delete(["a"])):
        with pytest.raises(Unavailable) as caught:
            action()
        assert caught.value.code == "store_forbidden"
        assert bucket.secret_key not in str(caught.value)
    _write_credentials(file, server.secret_key)
    store.put("a", b"2")
    assert store.get("a") == b"2"


def _write_credentials(file: Path, secret_key: str) -> None:
    file.write_text(f"[default]\naws_access_key_id = {s3.S3Server.access_key}\naws_secret_access_key = {secret_key}\n")


@pytest.mark.parametrize("endpoint", ["localhost:9000", "nonsense"])
def test_an_endpoint_that_is_no_address(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "anything")
    with pytest.raises(InvalidInput, match="FILIGRANE_S3_ENDPOINT_URL"):
        S3Store("bucket", endpoint_url=endpoint).get("a")


def test_no_credentials_at_all(server: s3.Versitygw, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = opened(server.bucket())
    for action in (lambda: store.get("a"), lambda: store.url("a", timedelta(hours=1))):
        with pytest.raises(Unavailable, match="AWS_ACCESS_KEY_ID") as caught:
            action()
        assert caught.value.code == "store_forbidden"


def test_a_server_whose_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed("s3", s3.versitygw)
    (tmp_path / "small").mkdir()
    with _small_disk(tmp_path / "small"), s3.Versitygw(tmp_path / "small/server") as server:
        bucket = server.bucket()
        for name, value in bucket.credentials().items():
            monkeypatch.setenv(name, value)
        store = opened(bucket)
        store.put("kept", bytes(5 * MB))
        for size in (14 * MB, 40 * MB):
            with pytest.raises(Unavailable) as caught:
                store.put("large", os.urandom(size))
            assert caught.value.code == "store_full"
        assert [info.key for info in store.list("")] == ["kept"]
        store.delete(["kept"])
        store.put("large", data := os.urandom(10 * MB))
        assert store.get("large") == data


class _small_disk:
    """16 MB of memory as a disk; skips where it may not be mounted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", self._folder], check=False).returncode:
            pytest.skip("a small disk can only be mounted by root")

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", self._folder], check=True)
