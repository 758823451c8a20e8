"""S3 that fails, lies, or is not there: what was put is there, byte for byte, or an error says what to do."""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import pytest
from botocore.config import Config

from core.errors import Corrupt, ObjectMissing, Unavailable
from core.objectstore.s3 import S3Store, connection
from tests.servers import s3
from tests.servers.proxy import Answer, Call, Proxy

T = TypeVar("T")
MB = 1 << 20


def opened(bucket: s3.Bucket, endpoint: str = "") -> S3Store:
    return S3Store(bucket.name, f"test/{os.urandom(8).hex()}", endpoint_url=endpoint or bucket.endpoint)


@pytest.fixture
def proxy(s3_server: s3.Bucket, s3_settings: dict[str, str]) -> Iterator[Proxy]:
    with Proxy(int(s3_server.endpoint.rsplit(":", 1)[1])) as running:
        yield running


@pytest.fixture
def faulty(proxy: Proxy, s3_server: s3.Bucket) -> S3Store:
    """A store that reaches the server through the proxy."""
    return opened(s3_server, proxy.url)


def straight(store: S3Store, bucket: s3.Bucket) -> S3Store:
    """The same objects without the proxy."""
    return S3Store(bucket.name, store._prefix.rstrip("/"), endpoint_url=bucket.endpoint)


def persisted(action: Callable[[], T]) -> T:
    """As callers do: what is unavailable now is asked for again."""
    for _ in range(20):
        try:
            return action()
        except Unavailable as error:
            last = error
    raise last


def xml_error(status: int, code: str, message: str = "") -> Answer:
    return Answer(
        status, (("Content-Type", "application/xml"),), f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    )


# --- G12: calls that fail


class Trouble:
    """Three in ten calls go wrong, each in one of seven ways."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.count = 0

    def __call__(self, call: Call) -> Answer | None:
        if self._random.random() > 0.3:
            return call.forward()
        self.count += 1
        return self._random.choice(
            [self.busy, self.broken, self.unheard, self.cut_question, self.cut_answer, self.damaged, self.other_etag]
        )(call)

    def busy(self, call: Call) -> Answer | None:
        call.handler.rfile.read(call.length)
        return xml_error(503, "SlowDown")

    def broken(self, call: Call) -> Answer | None:
        call.handler.rfile.read(call.length)
        return xml_error(*self._random.choice([(500, "InternalError"), (409, "OperationAborted"), (400, "RequestTimeout")]))

    def unheard(self, call: Call) -> Answer | None:
        """It is done, and nobody hears of it."""
        call.forward()
        return None

    def cut_question(self, call: Call) -> Answer | None:
        call.handler.rfile.read(call.length // 2)
        return None

    def cut_answer(self, call: Call) -> Answer | None:
        answer = call.forward()
        return replace(answer, cut=len(answer.body) // 2, reset=self._random.random() < 0.5)

    def damaged(self, call: Call) -> Answer | None:
        """A flipped byte in an object's body."""
        answer = call.forward()
        if call.method != "GET" or not answer.body or "list-type" in call.target or "uploadId" in call.target:
            return answer
        at = self._random.randrange(len(answer.body))
        return replace(answer, body=answer.body[:at] + bytes([answer.body[at] ^ 1]) + answer.body[at + 1 :])

    def other_etag(self, call: Call) -> Answer | None:
        return call.forward().with_header("ETag", f'"{self._random.randbytes(16).hex()}"')


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 21))])
def test_g12_three_calls_in_ten_fail(
    seed: int, proxy: Proxy, faulty: S3Store, s3_server: s3.Bucket, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """G12: three calls in ten fail, each in one of seven ways; what was put is there, byte for byte."""
    source = random.Random(seed)
    proxy.behaviour = trouble = Trouble(seed)
    objects = {f"small/{number}": source.randbytes(source.randrange(100_000)) for number in range(20)}
    objects |= {f"part/{number}": source.randbytes(size) for number, size in enumerate((6 * MB, 9 * MB, 1000, 5 * MB))}
    for key, data in objects.items():
        assert persisted(lambda key=key, data=data: faulty.put(key, data)).length == len(data)  # type: ignore[misc]
    (tmp_path / "large").write_bytes(large := source.randbytes(20 * MB))
    persisted(lambda: faulty.put("large", tmp_path / "large"))
    parts = [f"part/{number}" for number in range(4)]
    persisted(lambda: faulty.join(parts, "joined", tail=b"tail"))
    objects |= {"large": large, "joined": b"".join(objects[part] for part in parts) + b"tail"}

    assert {key: persisted(lambda key=key: faulty.get(key)) for key in objects if key != "joined"} == {  # type: ignore[misc]
        key: data for key, data in objects.items() if key != "joined"
    }
    assert persisted(lambda: b"".join(faulty.stream("large"))) == large
    assert {info.key for info in persisted(lambda: list(faulty.list("")))} == set(objects)
    direct = straight(faulty, s3_server)
    lost = [key for key, data in objects.items() if direct.get(key) != data]
    record_property("acknowledged", len(objects))
    record_property("lost", len(lost))
    assert lost == []
    persisted(lambda: faulty.delete(objects))
    assert list(direct.list("")) == []
    assert trouble.count > 20


def test_g12_a_damaged_upload_is_put_again(proxy: Proxy, faulty: S3Store, s3_server: s3.Bucket) -> None:
    """A byte that flips on the way there is noticed by the server."""
    damaged: list[str] = []

    def behaviour(call: Call) -> Answer | None:
        if call.method == "PUT" and not damaged:
            damaged.append(call.target)
            read, call.handler.rfile = call.handler.rfile, _Flipped(call.handler.rfile)  # type: ignore[assignment]
            try:
                return call.forward()
            finally:
                call.handler.rfile = read
        return call.forward()

    proxy.behaviour = behaviour
    data = os.urandom(MB)
    faulty.put("a", data)
    assert damaged
    assert straight(faulty, s3_server).get("a") == data


class _Flipped:
    def __init__(self, file: object) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        data = self._file.read(size)  # type: ignore[attr-defined]
        return bytes([data[0] ^ 1]) + data[1:] if data else b""


def test_g12_a_stream_goes_on_where_it_was_cut(proxy: Proxy, faulty: S3Store) -> None:
    data = os.urandom(10 * MB)
    faulty.put("a", data)
    spans: list[str] = []

    def behaviour(call: Call) -> Answer | None:
        answer = call.forward()
        if call.method == "GET":
            spans.append(call.header("Range"))
            return replace(answer, cut=min(3 * MB, len(answer.body))) if len(spans) < 3 else answer
        return answer

    proxy.behaviour = behaviour
    assert b"".join(faulty.stream("a")) == data
    assert len(spans) == 3
    starts = [int(span.removeprefix("bytes=").split("-")[0]) for span in spans]
    assert starts == sorted(set(starts))
    assert starts[-1] > 3 * MB


def counted(stream: Iterator[bytes], each: Callable[[bytes], object]) -> None:
    for piece in stream:
        each(piece)


def test_g12_an_object_replaced_while_it_is_read(s3_server: s3.Bucket, proxy: Proxy, faulty: S3Store) -> None:
    faulty.put("a", os.urandom(3 * MB))
    proxy.behaviour = lambda call: replace(call.forward(), cut=MB + 5) if call.method == "GET" else call.forward()
    direct = straight(faulty, s3_server)
    with pytest.raises(Unavailable) as caught:
        counted(faulty.stream("a"), lambda _: direct.put("a", os.urandom(3 * MB)))
    assert caught.value.code == "object_replaced"


def test_g12_lasting_damage_is_told(proxy: Proxy, faulty: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TRIES", 3)
    faulty.put("a", bytes(2 * MB))
    proxy.behaviour = lambda call: replace(call.forward(), body=b"x" * 2 * MB) if call.method == "GET" else call.forward()
    with pytest.raises(Corrupt):
        faulty.get("a")
    seen: list[int] = []
    with pytest.raises(Corrupt):
        counted(faulty.stream("a"), lambda piece: seen.append(len(piece)))
    assert sum(seen) < 2 * MB, "who counts bytes must not take it for whole"


def test_g12_a_body_that_stays_short_is_told(proxy: Proxy, faulty: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer is whole by its own Content-Length, and yet there is nothing in it."""
    monkeypatch.setattr(connection, "TRIES", 3)
    faulty.put("a", bytes(MB))
    asked: list[str] = []

    def behaviour(call: Call) -> Answer | None:
        asked.append(call.method)
        assert len(asked) < 20, "for ever"
        return replace(call.forward(), body=b"") if call.method == "GET" else call.forward()

    proxy.behaviour = behaviour
    with pytest.raises(Corrupt):
        list(faulty.stream("a"))
    assert asked.count("GET") == connection.TRIES


def test_g12_who_does_not_answer_is_not_waited_for_for_ever(proxy: Proxy, faulty: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CONFIG", connection._CONFIG.merge(Config(read_timeout=0.3)))
    hung = threading.Event()
    answers = iter([True, True])

    def behaviour(call: Call) -> Answer | None:
        if next(answers, False):
            hung.wait(60)
        return call.forward()

    proxy.behaviour = behaviour
    faulty.put("a", b"1")
    proxy.behaviour = lambda call: call.forward() if hung.wait(60) else None
    monkeypatch.setattr(connection, "TRIES", 2)
    with pytest.raises(Unavailable) as caught:
        faulty.get("a")
    assert caught.value.code == "store_unavailable"
    hung.set()


def test_g12_a_server_that_always_fails(proxy: Proxy, faulty: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An end to the tries, and nothing that claims to have worked."""
    monkeypatch.setattr(connection, "TRIES", 4)
    calls: list[str] = []

    def behaviour(call: Call) -> Answer | None:
        calls.append(call.method)
        call.handler.rfile.read(call.length)
        return xml_error(503, "SlowDown")

    proxy.behaviour = behaviour
    with pytest.raises(Unavailable) as caught:
        faulty.put("a", b"1")
    assert caught.value.retry_after > 0
    assert len(calls) == connection.TRIES


# --- G13: copies that are none


def joining(store: S3Store) -> tuple[list[str], bytes]:
    datas = [os.urandom(6 * MB), os.urandom(7 * MB), os.urandom(8 * MB)]
    for number, data in enumerate(datas):
        store.put(f"part/{number}", data)
    return [f"part/{number}" for number in range(3)], b"".join(datas)


def is_copy(call: Call) -> bool:
    return call.method == "PUT" and bool(call.header("x-amz-copy-source"))


def copy_result(etag: str, sha256: str = "") -> Answer:
    checksum = f"<ChecksumSHA256>{sha256}</ChecksumSHA256>" if sha256 else ""
    return Answer(200, (), f'<CopyPartResult><ETag>"{etag}"</ETag>{checksum}</CopyPartResult>'.encode())


EMPTY = hashlib.md5(b"").hexdigest()


@pytest.mark.parametrize("kind", ["empty", "unproven", "not done", "not done, listed", "not implemented"])
def test_g13_a_copy_that_is_none_is_streamed(kind: str, proxy: Proxy, faulty: S3Store, s3_server: s3.Bucket) -> None:
    parts, whole = joining(faulty)
    direct = straight(faulty, s3_server)
    etags = {part: direct._connection.client().head_object(Bucket=s3_server.name, Key=direct._name(part))["ETag"] for part in parts}
    faked: list[str] = []

    def behaviour(call: Call) -> Answer | None:
        if is_copy(call):
            faked.append(call.target)
            source = call.header("x-amz-copy-source")
            part = next(part for part in parts if source.endswith(part))
            return {
                "empty": lambda: copy_result(EMPTY),
                "unproven": lambda: copy_result("0123"),
                "not done": lambda: copy_result(etags[part].strip('"')),
                "not done, listed": lambda: copy_result(etags[part].strip('"')),
                "not implemented": lambda: xml_error(501, "NotImplemented"),
            }[kind]()
        if kind == "not done, listed" and call.method == "GET" and "uploadId" in call.target:
            sizes = [6 * MB, 7 * MB, 8 * MB]
            listed = "".join(f"<Part><PartNumber>{n + 1}</PartNumber><Size>{size}</Size></Part>" for n, size in enumerate(sizes))
            return Answer(200, (), f"<ListPartsResult>{listed}</ListPartsResult>".encode())
        return call.forward()

    proxy.behaviour = behaviour
    assert faulty.join(parts, "whole").length == len(whole)
    assert faked
    assert direct.get("whole") == whole
    assert uploads(s3_server, direct) == []


def uploads(bucket: s3.Bucket, store: S3Store) -> list[str]:
    found = bucket.client().list_multipart_uploads(Bucket=bucket.name, Prefix=store._prefix).get("Uploads", [])
    return [each["Key"] for each in found]


def test_g13_a_wrong_length_in_the_end_is_noticed(proxy: Proxy, faulty: S3Store, s3_server: s3.Bucket) -> None:
    parts, whole = joining(faulty)
    lies: list[str] = []

    def behaviour(call: Call) -> Answer | None:
        answer = call.forward()
        if call.method == "HEAD" and "/whole" in call.target and answer.status == 200 and not lies:
            lies.append(call.target)
            return answer.with_header("Content-Length", "7")
        return answer

    proxy.behaviour = behaviour
    faulty.join(parts, "whole")
    assert lies
    assert straight(faulty, s3_server).get("whole") == whole


def test_g13_large_parts_are_copied_and_small_ones_come_here(proxy: Proxy, faulty: S3Store, s3_server: s3.Bucket) -> None:
    sizes = [6 * MB, 1000, 2000, 6 * MB, 7 * MB, 3 * MB, 3 * MB, 8 * MB, 10]
    datas = [os.urandom(size) for size in sizes]
    for number, data in enumerate(datas):
        faulty.put(f"part/{number}", data)
    copied, uploaded = [], []

    def behaviour(call: Call) -> Answer | None:
        if is_copy(call):
            copied.append(call.header("x-amz-copy-source").rsplit("/", 1)[1])
        elif call.method == "PUT":
            uploaded.append(call.length)
        return call.forward()

    proxy.behaviour = behaviour
    faulty.join([f"part/{number}" for number in range(len(sizes))], "whole", tail=b"tail")
    assert copied == ["0", "4", "7"]
    assert uploaded == [6 * MB + 3000, 6 * MB, 14]
    assert straight(faulty, s3_server).get("whole") == b"".join(datas) + b"tail"


def test_a_cut_upload_leaves_nothing_and_a_dead_one_is_swept(proxy: Proxy, faulty: S3Store, s3_server: s3.Bucket, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(20 * MB))
    proxy.behaviour = lambda call: xml_error(403, "AccessDenied") if "partNumber=2" in call.target else call.forward()
    with pytest.raises(Unavailable):
        faulty.put("large", tmp_path / "large")
    direct = straight(faulty, s3_server)
    assert uploads(s3_server, direct) == []
    proxy.behaviour = lambda call: (
        xml_error(403, "AccessDenied") if call.method == "DELETE" or "partNumber=2" in call.target else call.forward()
    )
    with pytest.raises(Unavailable):
        faulty.put("large", tmp_path / "large")
    assert len(uploads(s3_server, direct)) == 1
    assert direct.sweep(datetime.now(UTC) - timedelta(days=1)) == 0
    assert direct.sweep(datetime.now(UTC) + timedelta(minutes=5)) == 1
    assert uploads(s3_server, direct) == []
    assert list(direct.list("")) == []


# --- deletes


def test_a_delete_that_fails_for_one_key_fails(proxy: Proxy, faulty: S3Store) -> None:
    faulty.put("a", b"1")
    told = b"<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code></Error></DeleteResult>"
    proxy.behaviour = lambda call: (
        Answer(200, (), told) if call.method == "POST" and call.handler.rfile.read(call.length) else call.forward()
    )
    with pytest.raises(Unavailable) as caught:
        faulty.delete(["a"])
    assert caught.value.code == "store_forbidden"
    told = b"<DeleteResult><Error><Key>a</Key><Code>InternalError</Code></Error></DeleteResult>"
    proxy.behaviour = _once(Answer(200, (), told))
    faulty.delete(["a"])
    with pytest.raises(ObjectMissing):
        faulty.head("a")


def _once(answer: Answer) -> Callable[[Call], Answer | None]:
    given: list[Answer] = []

    def behaviour(call: Call) -> Answer | None:
        if call.method == "POST" and not given:
            given.append(answer)
            call.handler.rfile.read(call.length)
            return answer
        return call.forward()

    return behaviour


@pytest.mark.parametrize("code", ["NotImplemented", "MissingContentMD5"])
def test_a_server_without_batches(code: str, proxy: Proxy, faulty: S3Store) -> None:
    for key in ("a", "b"):
        faulty.put(key, b"1")
    proxy.behaviour = lambda call: (
        xml_error(501, code) if call.method == "POST" and call.handler.rfile.read(call.length) else call.forward()
    )
    faulty.delete(["a", "b", "never"])
    assert list(faulty.list("")) == []
