from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from core.errors import Forbidden, InvalidInput, ObjectMissing, Unavailable
from core.objectstore.folder import FolderStore
from tests.core.contract_objectstore import ObjectStoreContract

HOUR = timedelta(hours=1)


def opened(root: Path, secret: bytes = b"secret") -> FolderStore:
    return FolderStore(root, public_url="http://127.0.0.1:8000/", secret=secret)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return opened(tmp_path / "store")


class TestContract(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> FolderStore:
        return opened(tmp_path / "store")


def test_a_key_below_an_object_or_above_one_is_refused(store: FolderStore, tmp_path: Path) -> None:
    store.put("a/b", b"")
    for key in ("a", "a/b/c", "a/b/c/d"):
        with pytest.raises(InvalidInput, match="prefix"):
            store.put(key, b"")
    assert len(files(tmp_path)) == 1


def test_a_prefix_cannot_leave_the_folder(store: FolderStore) -> None:
    for prefix in ("../", "../x", "a/../../x", "a//"):
        with pytest.raises(InvalidInput):
            store.list(prefix)


def test_empty_folders_go(store: FolderStore, tmp_path: Path) -> None:
    store.put("a/b/c/d", b"")
    store.delete(["a/b/c/d"])
    assert list((tmp_path / "store/objects").iterdir()) == []


def test_stale_temporary_files_are_swept_when_opened(store: FolderStore, tmp_path: Path) -> None:
    stale, fresh = tmp_path / "store/incoming/stale", tmp_path / "store/incoming/fresh"
    stale.write_bytes(b"half of someth")
    fresh.write_bytes(b"half of someth")
    os.utime(stale, (time.time() - 4000, time.time() - 4000))
    opened(tmp_path / "store")
    assert fresh.exists()
    assert not stale.exists()


def test_sweeping_takes_what_is_older(store: FolderStore, tmp_path: Path) -> None:
    for name, age in (("old", 100), ("young", 0)):
        (tmp_path / "store/incoming" / name).write_bytes(b"half of someth")
        os.utime(tmp_path / "store/incoming" / name, (time.time() - age, time.time() - age))
    assert store.sweep(datetime.now(UTC) - timedelta(seconds=50)) == 1
    assert [path.name for path in files(tmp_path)] == ["young"]


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "store_full"), (errno.EDQUOT, "store_full"), (errno.EIO, "store_unavailable")])
def test_a_full_or_broken_disk(store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str) -> None:
    store.put("kept", b"old")

    def failing(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(Unavailable) as caught:
        store.put("kept", b"new")
    with pytest.raises(Unavailable):
        store.join(["kept"], "joined")
    assert caught.value.code == code
    assert [path.name for path in files(tmp_path)] == ["kept"]
    assert store.get("kept") == b"old"


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """The kernel refuses at RLIMIT_FSIZE as it does at the end of the disk: in the middle of a write."""
    script = f"""
import resource, signal, sys
from pathlib import Path
from core.errors import Unavailable
from core.objectstore.folder import FolderStore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = FolderStore(Path({str(tmp_path)!r}), public_url="", secret=b"")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.put("large", bytes(300_000))
except Unavailable as error:
    sys.exit(0 if error.code == "store_unavailable" else 1)
sys.exit(2)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
    assert files(tmp_path) == []


def test_join_is_refused_when_a_part_changed_meanwhile(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("part", b"12345")
    monkeypatch.setattr(store, "_concatenation", lambda parts, tail: iter([b"1234"]))
    with pytest.raises(Unavailable) as caught:
        store.join(["part"], "whole")
    assert caught.value.code == "length_mismatch"
    assert [info.key for info in store.list("")] == ["part"]


def test_a_missing_source_is_the_callers_mistake(store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put("key", tmp_path / "absent")


def test_puts_and_deletes_side_by_side(store: FolderStore, tmp_path: Path) -> None:
    """A delete takes away folders that a put is about to use."""
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(40):
                store.put(f"deep/er/{number}", b"x")
                store.delete([f"deep/er/{number}"])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert files(tmp_path) == []


def test_a_killed_put_leaves_nothing_torn(tmp_path: Path) -> None:
    """kill -9 of a process that puts and joins in a loop: what is visible is whole, what it said it had put is there."""
    script = f"""
import hashlib, os
from pathlib import Path
from core.objectstore.folder import FolderStore
store = FolderStore(Path({str(tmp_path)!r}), public_url="", secret=b"")
for number in range(10**6):
    data = os.urandom(100_000 + number)
    key = f"{{number % 7}}/{{hashlib.sha256(data).hexdigest()}}"
    store.put(key, data)
    print(key, flush=True)
    store.put("same/name", hashlib.sha256(data).digest() + data)
    store.join([key, key], f"joined/{{number}}")
"""
    for delay in (0.05, 0.1, 0.2):
        acknowledged = _killed_after(script, delay)
        store = opened(tmp_path)
        assert acknowledged
        for info in store.list(""):
            _check_whole(store, info.key)
        for key in acknowledged:
            store.head(key)


def _killed_after(script: str, delay: float) -> list[str]:
    """What the process had printed, in whole lines, when it was killed `delay` seconds after its first line."""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
    return [line for line in (first + rest).split("\n")[:-1] if line]


def _check_whole(store: FolderStore, key: str) -> None:
    data, (folder, _, name) = store.get(key), key.partition("/")
    if folder == "same":
        assert hashlib.sha256(data[32:]).digest() == data[:32]
    elif folder == "joined":
        assert data[: len(data) // 2] == data[len(data) // 2 :]
        assert len(data) // 2 == 100_000 + int(name)
    else:
        assert hashlib.sha256(data).hexdigest() == name


def _taken_apart(url: str) -> tuple[str, str, str, str | None]:
    parts = urlsplit(url)
    assert url.startswith("http://127.0.0.1:8000/objects/")
    query = {name: values[0] for name, values in parse_qs(parts.query, strict_parsing=True).items()}
    return unquote(parts.path.removeprefix("/objects/")), query["expires"], query["signature"], query.get("filename")


@pytest.mark.parametrize("filename", [None, "photo.jpg", 'odd "name"\n; é.tar'])
def test_a_capability_opens_its_object(store: FolderStore, filename: str | None) -> None:
    store.put("a/b c+%.jpg", b"x")
    key, expires, signature, name = _taken_apart(store.url("a/b c+%.jpg", HOUR, filename=filename))
    assert (key, name) == ("a/b c+%.jpg", filename)
    store.verify(key, expires, signature, name)
    store.verify(key, int(expires), signature, name)


def test_a_capability_opens_nothing_else(store: FolderStore, tmp_path: Path) -> None:
    store.put("a", b"")
    store.put("b", b"")
    key, expires, signature, name = _taken_apart(store.url("a", HOUR, filename="n"))
    forged = [
        ("b", expires, signature, name),
        (key, str(int(expires) + 1), signature, name),
        (key, expires, signature, "m"),
        (key, expires, signature, None),
        (key, expires, "", name),
        (key, expires, "é" * 64, name),
        (key, "never", signature, name),
        ("../a", expires, signature, name),
        ("a\ud800", expires, signature, name),
    ]
    for values in forged:
        with pytest.raises(Forbidden) as caught:
            store.verify(*values)
        assert caught.value.code == "bad_signature"
    with pytest.raises(Forbidden):
        opened(tmp_path / "store", b"another secret").verify(key, expires, signature, name)


def test_a_capability_expires(store: FolderStore) -> None:
    store.put("a", b"")
    with pytest.raises(Forbidden) as caught:
        store.verify(*_taken_apart(store.url("a", -HOUR)))
    assert caught.value.code == "url_expired"


def test_a_capability_of_a_deleted_object(store: FolderStore) -> None:
    store.put("a", b"")
    parts = _taken_apart(store.url("a", HOUR))
    store.delete(["a"])
    with pytest.raises(ObjectMissing):
        store.verify(*parts)
