from __future__ import annotations

import asyncio
import gzip
import time
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import AddressRefused
from core.netguard import Netguard
from crawler.download import HttpClient, request_head
from crawler.exchange import MAX_HEAD, MAX_MEMBERS, Answer, DownloadError, Exchange, NotSent

LIMIT = 1000
OK = b"HTTP/1.1 200 OK\r\nContent-Type: Text/HTML; charset=utf-8\r\n"


def read(
    data: bytes, *, step: int = 0, close: bool = False, max_bytes: int = LIMIT, accept: Callable[[int, str], bool] | None = None
) -> Answer:
    """An answer fed with `data`, in pieces of `step` bytes."""
    answer = Answer(max_bytes, accept)
    for at in range(0, len(data), step or max(len(data), 1)):
        if answer.finished:
            break
        answer.feed(data[at : at + (step or len(data))])
    if close and not answer.finished:
        answer.end(reset=False)
    return answer


# --- reading an answer


@pytest.mark.parametrize("step", [0, 1, 7])
@pytest.mark.parametrize(
    "framed",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nTrailer: x\r\n\r\n",
    ],
)
def test_a_framed_answer(framed: bytes, step: int) -> None:
    answer = read(OK + framed, step=step)
    assert (answer.status, answer.body, answer.truncated, answer.finished, answer.reusable) == (200, b"hello", None, True, True)
    assert answer.head == OK + framed.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert answer.headers[0] == (b"content-type", b"Text/HTML; charset=utf-8")


def test_an_answer_that_ends_with_the_connection() -> None:
    answer = read(OK + b"\r\nhello", close=True)
    assert (answer.body, answer.truncated, answer.reusable) == (b"hello", None, False)


@pytest.mark.parametrize("framed", [b"Content-Length: 9\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n9\r\nhello"])
def test_an_answer_that_is_cut(framed: bytes) -> None:
    answer = read(OK + framed, close=True)
    assert (answer.body, answer.truncated, answer.reusable) == (b"hello", "disconnect", False)


@pytest.mark.parametrize(
    "data",
    [
        b"hello, HTTP/0.9",
        b"SSH-2.0-x\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: x\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"X: " + b"y" * MAX_HEAD,
        OK + b"X: y\r\n" * MAX_HEAD,
        OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 100_000,
        OK + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 1_000_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 30,
    ],
)
def test_nonsense_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(DownloadError) as caught:
        read(data, step=4096, close=True)
    assert caught.value.reason == "protocol"


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\nX: y"])
def test_a_connection_closed_within_the_head(data: bytes) -> None:
    with pytest.raises(DownloadError) as caught:
        read(data, close=True)
    assert caught.value.reason == "disconnected"


def test_interim_answers_are_passed_over() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    answer = read(early + early + OK + b"Content-Length: 2\r\n\r\nok", step=1)
    assert (answer.status, answer.body) == (200, b"ok")
    assert b"103" not in answer.head


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_an_answer_without_a_body_has_none(status: bytes) -> None:
    answer = read(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5000\r\n\r\nhello")
    assert (answer.finished, answer.body, answer.refused, answer.reusable) == (True, b"", "", False)


def test_reading_stops_at_the_limit() -> None:
    answer = read(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"a\r\n0123456789\r\n" * LIMIT)
    assert (len(answer.body), answer.truncated, answer.finished, answer.reusable) == (LIMIT, "length", True, False)
    whole = read(OK + b"Content-Length: 1000\r\n\r\n" + b"x" * LIMIT)
    assert (len(whole.body), whole.truncated) == (LIMIT, None)


def test_text_that_declares_too_much_is_cut_and_other_types_are_refused() -> None:
    declared = b"Content-Length: 200000000\r\n\r\n" + b"x" * 2000
    assert read(OK + declared).truncated == "length"
    picture = read(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n" + declared)
    assert (picture.refused, picture.body, picture.truncated) == ("size", b"", None)


def test_the_caller_may_refuse_after_the_head() -> None:
    asked: list[tuple[int, str]] = []

    def accept(status: int, kind: str) -> bool:
        asked.append((status, kind))
        return False

    answer = read(OK + b"Content-Length: 5\r\n\r\nhello", accept=accept)
    assert (answer.refused, answer.body, answer.reusable) == ("type", b"", False)
    assert asked == [(200, "text/html")]


# --- Content-Encoding


def encoded(encoding: str, body: bytes, *, step: int = 0, max_bytes: int = LIMIT) -> Answer:
    return read(OK + f"Content-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body, step=step, max_bytes=max_bytes)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(b"hello")),
        ("X-GZIP", gzip.compress(b"hel") + gzip.compress(b"lo") + b"\0\0"),
        ("deflate", zlib.compress(b"hello")),
        ("deflate", raw_deflate(b"hello")),
        ("identity", b"hello"),
    ],
)
def test_encodings(encoding: str, packed: bytes, step: int) -> None:
    answer = encoded(encoding, packed, step=step)
    assert (answer.body, answer.decoded(answer.body), answer.refused, answer.truncated) == (packed, b"hello", "", None)


@pytest.mark.parametrize(
    ("encoding", "packed"), [("gzip", b"hello"), ("br", b"hello"), ("gzip, gzip", b"x"), ("gzip", gzip.compress(b"") * (MAX_MEMBERS + 1))]
)
def test_what_cannot_be_decoded_is_kept_and_marked(encoding: str, packed: bytes) -> None:
    answer = encoded(encoding, packed, max_bytes=len(packed))
    assert (answer.body, answer.decoded(answer.body), answer.refused) == (packed, b"", "encoding")


def test_a_bomb_stops_at_the_limit() -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    answer = encoded("gzip", bomb, max_bytes=50_000)
    assert len(answer.decoded(answer.body)) == 50_000
    assert answer.truncated == "length"
    assert len(answer.body) < len(bomb)


@given(st.binary(max_size=300), st.integers(1, 50), st.booleans())
def test_random_bytes_never_break_the_reader(tail: bytes, step: int, head: bool) -> None:
    try:
        answer = read((OK if head else b"HTTP/1.1 200 OK\r\n") + tail, step=step, close=True)
    except DownloadError:
        return
    assert len(answer.body) <= LIMIT
    assert answer.finished


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]), st.integers(1, 30))
def test_random_encoded_bytes_never_break_the_reader(body: bytes, encoding: str, step: int) -> None:
    answer = encoded(encoding, body, step=step)
    assert len(answer.decoded(answer.body)) <= LIMIT


# --- the request


def test_the_head_of_a_request() -> None:
    head = request_head("http://example.org:8080/a?b", [("User-Agent", "me/1"), ("accept", "image/*"), ("Host", "evil.example")])
    assert (
        head
        == b"GET /a?b HTTP/1.1\r\nHost: example.org:8080\r\naccept: image/*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: me/1\r\n\r\n"
    )


@pytest.mark.parametrize(
    "url", ["http://example.org/a b", "http://example.org/\r\nX: y", "http://u:p@example.org/", "ftp://example.org/", "/a", ""]
)
def test_only_a_normal_url_is_asked_for(url: str) -> None:
    with pytest.raises(DownloadError):
        request_head(url)


@pytest.mark.parametrize("header", [("X", "a\r\nY: b"), ("X\r\nY", "b"), ("X: y", "b"), ("X", "a\0"), ("é", "b")])
def test_no_header_can_be_injected(header: tuple[str, str]) -> None:
    with pytest.raises(DownloadError):
        request_head("http://example.org/", [header])


# --- the client

Serve = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]


@asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[tuple[str, HttpClient, list[int]]]:
    """A server that hands each connection (numbered) to `serve`; a client that may reach it; the connections so far."""
    connections: list[int] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(len(connections))
        try:
            await serve(connections[-1], reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    client = HttpClient(Netguard(["127.0.0.0/8"]))
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", client, connections
    finally:
        await client.close()
        server.close()
        await asyncio.sleep(0)


async def answer_to(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: bytes) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    writer.write(answer)
    await writer.drain()
    return head


def small(body: bytes) -> bytes:
    return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body


def test_what_may_not_be_sent_any_more_is_not_sent_however_late_that_turns_out() -> None:
    """Asked when the connection stands, also on one that was kept; nothing of the request arrives."""

    async def run() -> None:
        arrived: list[bytes] = []

        async def serve(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                arrived.append(await answer_to(reader, writer, small(b"x")))

        async with served(serve) as (url, client, connections):
            with pytest.raises(NotSent):
                await client.fetch(url, guard=lambda: not connections)  # no connection yet: true until one is made
            assert (len(connections), arrived) == (1, [])
            await client.fetch(url, guard=lambda: True)
            with pytest.raises(NotSent):
                await client.fetch(url, guard=lambda: False)
            assert (await client.fetch(url)).body == b"x"
            assert len(arrived) == 2

    asyncio.run(run())


def test_connections_are_kept_and_exchanges_are_whole() -> None:
    heads: list[bytes] = []

    async def serve(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await answer_to(reader, writer, small(b"hello")))

    async def go() -> list[Exchange]:
        async with served(serve) as (url, client, connections):
            found = [await client.fetch(f"{url}{n}", headers=[("User-Agent", "me")]) for n in range(3)]
            assert connections == [0]
            return found

    before = time.monotonic()
    found = asyncio.run(go())
    first = found[0]
    assert [exchange.request_head for exchange in found] == heads
    assert (first.status, first.body, first.decoded, first.ip, first.truncated, first.refused) == (
        200,
        b"hello",
        b"hello",
        "127.0.0.1",
        None,
        "",
    )
    assert first.response_head + first.body == small(b"hello")
    assert (first.content_type, first.header("content-type")) == ("text/html", "Text/HTML; charset=utf-8")
    assert before <= first.sent_at <= found[1].sent_at <= time.monotonic()
    assert first.at.tzinfo is not None


def test_a_stale_connection_is_replaced_without_a_word() -> None:
    async def serve(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_to(reader, writer, small(b"hello"))
        await reader.readuntil(b"\r\n\r\n")

    async def go() -> None:
        async with served(serve) as (url, client, connections):
            for _ in range(3):
                assert (await client.fetch(url)).body == b"hello"
            assert len(connections) == 3

    asyncio.run(go())


def test_a_fresh_connection_that_dies_is_an_error() -> None:
    async def serve(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async def go() -> None:
        async with served(serve) as (url, client, connections):
            with pytest.raises(DownloadError) as caught:
                await client.fetch(url)
            assert caught.value.reason == "disconnected"
            assert caught.value.sent_at is not None
            assert len(connections) == 1

    asyncio.run(go())


def dripping(start: bytes) -> Serve:
    """Answers with `start` and then a byte now and then, or none."""

    async def serve(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_to(reader, writer, start)
        while True:
            await asyncio.sleep(0.01)
            writer.write(b"." if start else b"")
            await writer.drain()

    return serve


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX: "])
def test_a_head_that_never_ends_is_a_timeout(start: bytes) -> None:
    async def go() -> None:
        async with served(dripping(start)) as (url, client, _):
            with pytest.raises(DownloadError) as caught:
                await client.fetch(url, timeout=0.2)
            assert caught.value.reason == "timeout"

    asyncio.run(asyncio.wait_for(go(), 30))


def test_a_body_that_never_ends_is_cut() -> None:
    async def go() -> None:
        async with served(dripping(OK + b"\r\nhello")) as (url, client, _):
            exchange = await client.fetch(url, timeout=0.2)
            assert exchange.truncated == "time"
            assert exchange.body.startswith(b"hello")

    asyncio.run(asyncio.wait_for(go(), 30))


def test_what_comes_unasked_is_never_taken_for_an_answer() -> None:
    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_to(reader, writer, small(b"%d" % number) + small(b"forged"))
        await reader.read()

    async def go() -> None:
        async with served(serve) as (url, client, _):
            assert [(await client.fetch(url)).body for _ in range(3)] == [b"0", b"1", b"2"]

    asyncio.run(go())


def test_refused_addresses_are_never_dialled() -> None:
    async def serve(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError

    async def go() -> None:
        async with served(serve) as (url, _, connections):
            with pytest.raises(AddressRefused):
                await HttpClient(Netguard()).fetch(url)
            assert connections == []

    asyncio.run(go())


def test_nobody_listens() -> None:
    async def go() -> None:
        server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(DownloadError) as caught:
            await HttpClient(Netguard(["127.0.0.0/8"])).fetch(f"http://127.0.0.1:{port}/")
        assert (caught.value.reason, caught.value.sent_at) == ("unreachable", None)

    asyncio.run(go())


def test_no_tls_where_tls_was_asked() -> None:
    async def serve(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read()

    async def go() -> None:
        async with served(serve) as (url, client, _):
            with pytest.raises(DownloadError) as caught:
                await client.fetch(url.replace("http:", "https:"))
            assert caught.value.reason == "tls"

    asyncio.run(go())
