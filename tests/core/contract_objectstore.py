"""What every object store keeps, whichever it is. A store joins by a subclass that gives a `store` fixture."""

from __future__ import annotations

import os
import string
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import InvalidInput, ObjectMissing
from core.objectstore import ObjectStore

SEGMENTS = st.text(string.ascii_letters + string.digits + "-_.,+=@ ~%", min_size=1, max_size=20).filter(
    lambda text: text.strip(". ") == text
)
KEYS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join)
DATA = st.binary(max_size=3000)
BAD_KEYS = ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "./a", "a\0b", "a\nb", "é", "a\\b", "x" * 256, "x/" * 600 + "x"]
SHARED_FIXTURE = settings(  # one suite over several stores is what this is for
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors], max_examples=30, deadline=None
)


class ObjectStoreContract:
    in_key_order = True
    """Whether its lists are; SeaweedFS goes folder by folder."""

    def listed(self, store: ObjectStore, prefix: str) -> list[str]:
        """The keys, in order also where the server has another."""
        keys = [info.key for info in store.list(prefix)]
        return keys if self.in_key_order else sorted(keys)

    @pytest.fixture
    def store(self) -> ObjectStore:
        raise NotImplementedError

    def test_put_get_head(self, store: ObjectStore) -> None:
        info = store.put("a/b.bin", b"hello")
        assert (info.key, info.length) == ("a/b.bin", 5)
        assert abs(datetime.now(UTC) - info.modified) < timedelta(minutes=5)
        assert store.get("a/b.bin") == b"hello"
        assert store.head("a/b.bin")[:2] == ("a/b.bin", 5)

    def test_put_replaces(self, store: ObjectStore) -> None:
        store.put("a", b"first, and longer")
        store.put("a", b"second")
        assert store.get("a") == b"second"

    def test_put_file(self, store: ObjectStore, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(data := os.urandom(3_000_000))
        assert store.put("file", source).length == len(data)
        source.write_bytes(b"changed afterwards")
        assert store.get("file") == data

    def test_empty_object(self, store: ObjectStore) -> None:
        assert store.put("empty", b"").length == 0
        assert store.get("empty") == b""
        assert store.get_range("empty", 0, 10) == b""
        assert b"".join(store.stream("empty")) == b""

    @pytest.mark.parametrize(("offset", "length"), [(0, 4), (2, 3), (8, 100), (10, 5), (50, 5), (3, 0)])
    def test_ranges(self, store: ObjectStore, offset: int, length: int) -> None:
        store.put("r", b"0123456789")
        assert store.get_range("r", offset, length) == b"0123456789"[offset : offset + length]
        assert b"".join(store.stream("r", offset, length)) == b"0123456789"[offset : offset + length]

    def test_stream_is_in_pieces(self, store: ObjectStore) -> None:
        data = os.urandom(5_000_000)
        store.put("big", data)
        pieces = list(store.stream("big"))
        assert b"".join(pieces) == data
        assert max(map(len, pieces)) <= 4 << 20
        assert b"".join(store.stream("big", 4_999_990)) == data[-10:]

    def test_negative_ranges_are_refused(self, store: ObjectStore) -> None:
        store.put("r", b"0123456789")
        with pytest.raises(InvalidInput):
            store.get_range("r", -1, 5)
        with pytest.raises(InvalidInput):
            store.get_range("r", 0, -5)

    def test_missing(self, store: ObjectStore) -> None:
        store.put("folder/object", b"")
        for key in ("absent", "folder", "folder/absent", "folder/object/below"):
            with pytest.raises(ObjectMissing):
                store.get(key)
            with pytest.raises(ObjectMissing):
                store.get_range(key, 0, 1)
            with pytest.raises(ObjectMissing):
                store.head(key)
            with pytest.raises(ObjectMissing):
                list(store.stream(key))

    def test_delete(self, store: ObjectStore) -> None:
        store.put("d/one", b"1")
        store.put("d/two", b"2")
        store.delete(["d/one", "d/never", "never/there", "d"])
        assert [info.key for info in store.list("")] == ["d/two"]
        store.delete(["d/two"])
        assert list(store.list("")) == []
        store.put("d", b"the folder is gone, its name is free")

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_bad_keys_are_refused(self, store: ObjectStore, key: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            store.put(key, b"")
        assert caught.value.code == "bad_key"
        with pytest.raises(InvalidInput):
            store.get(key)
        with pytest.raises(InvalidInput):
            store.delete([key])
        with pytest.raises(InvalidInput):
            store.url(key, timedelta(hours=1))

    def test_list_in_key_order(self, store: ObjectStore) -> None:
        keys = ["a/c", "a-b", "a.b", "a/b/c", "a/b-c", "a0", "b/1", "b/10", "b/2"]
        for key in keys:
            store.put(key, key.encode())
        assert self.listed(store, "") == sorted(keys)
        assert self.listed(store, "a/b") == ["a/b-c", "a/b/c"]
        assert self.listed(store, "b/1") == ["b/1", "b/10"]
        assert {info.key: info.length for info in store.list("a/")} == {key: len(key) for key in keys if key.startswith("a/")}
        assert list(store.list("none/such")) == []

    @SHARED_FIXTURE
    @given(objects=st.dictionaries(KEYS, DATA, max_size=8), prefix=st.text("ab/", max_size=3))
    def test_what_was_put_is_there(self, store: ObjectStore, objects: dict[str, bytes], prefix: str) -> None:
        root = f"{uuid4().hex}/"
        objects = {root + key: data for key, data in objects.items() if not any(other.startswith(key + "/") for other in objects)}
        for key, data in objects.items():
            store.put(key, data)
        assert {key: store.get(key) for key in objects} == objects
        assert {info.key: info.length for info in store.list(root)} == {key: len(data) for key, data in objects.items()}
        assert self.listed(store, root) == sorted(objects)
        some = root + prefix if "//" not in prefix and not prefix.startswith("/") else root
        assert self.listed(store, some) == sorted(key for key in objects if key.startswith(some))
        store.delete(objects)
        assert list(store.list(root)) == []

    @SHARED_FIXTURE
    @given(parts=st.lists(DATA, max_size=5), tail=st.binary(max_size=1024))
    def test_join(self, store: ObjectStore, parts: list[bytes], tail: bytes) -> None:
        keys = [f"parts/{number}" for number, _ in enumerate(parts)]
        for key, data in zip(keys, parts, strict=True):
            store.put(key, data)
        whole = b"".join(parts) + tail
        assert store.join(keys, "whole", tail=tail).length == len(whole)
        assert store.get("whole") == whole

    def test_join_of_large_parts(self, store: ObjectStore) -> None:
        """Larger than the least part of a multipart upload, and smaller."""
        parts = [os.urandom(size) for size in (6 << 20, 1000, 5 << 20, 3)]
        for number, part in enumerate(parts):
            store.put(f"part/{number}", part)
        store.join([f"part/{number}" for number in range(4)], "joined", tail=b"tail")
        assert store.get("joined") == b"".join(parts) + b"tail"

    def test_join_with_a_missing_part_leaves_nothing(self, store: ObjectStore) -> None:
        store.put("part", b"1")
        with pytest.raises(ObjectMissing):
            store.join(["part", "missing"], "whole")
        assert [info.key for info in store.list("")] == ["part"]

    def test_many_are_listed_and_deleted(self, store: ObjectStore) -> None:
        """More than a page of a server's list."""
        keys = [f"many/{number:04}" for number in range(1010)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, b""), keys))
        assert self.listed(store, "many/") == keys
        store.delete(keys)
        assert list(store.list("many/")) == []

    def test_sweeping_leaves_what_shows(self, store: ObjectStore) -> None:
        store.put("kept", b"1")
        store.sweep(datetime.now(UTC) + timedelta(hours=1))
        assert store.get("kept") == b"1"

    def test_head_is_stable(self, store: ObjectStore) -> None:
        """Addresses' ETags are made of it."""
        assert store.put("a", b"1") == store.head("a") == store.head("a") == next(store.list("a"))
