from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import netguard
from core.errors import AddressRefused, InvalidInput
from core.netguard import HostUnknown, Netguard, RemoteFailed, fetch

LOOPBACK = Netguard(["127.0.0.0/8"])
SPECIAL = """127.0.0.1 127.255.0.1 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 0.0.0.0 0.1.2.3 100.64.0.1 100.127.255.254
    198.18.0.1 198.19.255.255 192.0.0.8 192.0.2.1 192.88.99.1 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    ::1 :: fc00::1 fd12::1 fe80::1 fe80::1%eth0 fec0::1 ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:0:7f00:1 ::127.0.0.1 ::8.8.8.8
    64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1:: 2002:808:808:: 2001:0:7f00:1:: 2001:db8::1 3fff::1 100::1 5f00::1 4000::1"""
PUBLIC = "8.8.8.8 1.1.1.1 172.32.0.1 2606:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808"


@pytest.mark.parametrize(
    "address",
    SPECIAL.split(),
)
def test_what_is_not_public_is_refused(address: str) -> None:
    with pytest.raises(AddressRefused):
        Netguard().check(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_what_is_public_passes(address: str) -> None:
    Netguard().check(address)


def test_the_operator_allows_networks() -> None:
    LOOPBACK.check("127.0.0.1")
    LOOPBACK.check("::ffff:127.0.0.1")
    with pytest.raises(AddressRefused):
        LOOPBACK.check("10.0.0.1")
    with pytest.raises(InvalidInput):
        LOOPBACK.check("not an address")


@given(st.ip_addresses())
def test_never_more_open_than_the_standard_library(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Whatever is_private or is_reserved says no to is refused; the list only refuses more."""
    if netguard.is_public(ip):
        assert not any((ip.is_private, ip.is_loopback, ip.is_link_local, ip.is_multicast, ip.is_reserved, ip.is_unspecified))


def _answers(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def resolver(host: str, port: int, **_: object) -> list[Any]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolver)


def test_of_mixed_addresses_only_the_public_ones_are_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, "127.0.0.1", "8.8.8.8", "::1", "10.0.0.1")
    assert asyncio.run(Netguard().resolve("mixed.example", 80)) == [(socket.AF_INET, "8.8.8.8")]


def test_a_name_without_a_public_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch, "127.0.0.1", "::1")
    with pytest.raises(AddressRefused):
        asyncio.run(Netguard().resolve("rebound.example", 80))


def test_a_name_without_addresses_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    _answers(monkeypatch)
    with pytest.raises(HostUnknown):
        asyncio.run(Netguard().resolve("nowhere.example", 80))


def test_a_resolver_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: go.wait(30) and [])
    guard = Netguard()

    async def ask() -> None:
        try:
            with pytest.raises(HostUnknown):
                await guard.resolve("slow.example", 80, timeout=0.05)
        finally:
            go.set()

    asyncio.run(ask())


@contextmanager
def served(*answers: bytes, hold: bool = False) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives the answers in turn, one connection each, and the request heads that it got."""
    heads: list[bytes] = []
    end = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def serve() -> None:
            for answer in answers:
                try:
                    connected, _ = listener.accept()
                except OSError:
                    return
                with connected:
                    heads.append(connected.recv(65536))
                    connected.sendall(answer)
                    if hold:
                        end.wait(10)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", heads
        finally:
            end.set()
            listener.shutdown(socket.SHUT_RDWR)  # wakes a waiting accept
            thread.join(10)


def test_fetches_what_a_user_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with served(
        b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: Image/PNG; x=1\r\nContent-Length: 3\r\n\r\nabc",
    ) as (url, heads):
        answer = fetch(f"{url}/a?q", LOOPBACK, max_bytes=3)
    assert (answer.url, answer.content_type, answer.body) == (f"{url}/b", "image/png", b"abc")
    assert heads[0].startswith(b"GET /a?q HTTP/1.1\r\nHost: 127.0.0.1:")


def test_no_connection_to_a_refused_address() -> None:
    with served(b"") as (url, heads), pytest.raises(AddressRefused):
        fetch(url, Netguard(), max_bytes=10)
    assert heads == []


def test_a_redirect_is_checked_again() -> None:
    with served(b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n") as (url, _), pytest.raises(AddressRefused):
        fetch(url, LOOPBACK, max_bytes=10)


def test_a_redirect_to_another_scheme_is_refused() -> None:
    with served(b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n") as (url, _), pytest.raises(InvalidInput) as caught:
        fetch(url, LOOPBACK, max_bytes=10)
    assert caught.value.code == "invalid_url"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    ],
)
def test_too_much_is_refused(answer: bytes) -> None:
    with served(answer) as (url, _), pytest.raises(InvalidInput) as caught:
        fetch(url, LOOPBACK, max_bytes=4)
    assert caught.value.code == "too_large"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_other_failures_all_read_the_same(answer: bytes) -> None:
    with served(answer) as (url, _), pytest.raises(RemoteFailed, match=r"^the URL could not be fetched$"):
        fetch(url, LOOPBACK, max_bytes=10)


def test_a_redirect_loop_ends() -> None:
    with served(*[b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"] * 3) as (url, heads), pytest.raises(RemoteFailed):
        fetch(url, LOOPBACK, max_bytes=10, max_redirects=2)
    assert len(heads) == 3


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\nabc"])
def test_an_answer_that_never_ends_is_cut(answer: bytes) -> None:
    with served(answer, hold=True) as (url, _), pytest.raises(RemoteFailed):
        fetch(url, LOOPBACK, max_bytes=10, timeout=0.2)
