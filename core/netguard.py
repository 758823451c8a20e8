"""Which addresses may be reached from here, and the one bounded way in which the API fetches what a user names.

Names are resolved here and the addresses that were checked are the addresses that are dialled, so a name that answers differently the
second time gains nothing. Not `is_global`: it lets NAT64, 6to4 and translated addresses through. Sources: IANA's registries of special
IPv4 and IPv6 addresses (RFC 6890).
"""

from __future__ import annotations

import asyncio
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from core.errors import AddressRefused, InvalidInput
from core.urls import host_port, normalise

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

RESOLVE_TIMEOUT: Final = 10.0
REDIRECTS: Final = (301, 302, 303, 307, 308)

_NOT_PUBLIC: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # protocol assignments, Teredo
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
)
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""The only IPv6 addresses given out; everything local, compatible or translated is outside."""
_EMBEDDING: Final = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))
"""Mapped and NAT64: as public as the IPv4 address in the last 32 bits."""


class HostUnknown(InvalidInput):
    """The name has no address, or the resolver gave none in time."""

    default_code = "host_unknown"


class RemoteFailed(InvalidInput):
    """What the URL names could not be fetched; the text is the same whatever the cause, so that nothing can be probed."""

    default_code = "remote_failed"


class Netguard:
    """Lets public addresses through, and those in `allow`."""

    def __init__(self, allow: Iterable[Network | str] = ()) -> None:
        self._allow = tuple(ipaddress.ip_network(network) for network in allow)
        self._threads: ThreadPoolExecutor | None = None

    def check(self, address: Address | str) -> None:
        """Raises AddressRefused when the address is neither public nor allowed, InvalidInput when it is none."""
        try:
            ip = ipaddress.ip_address(address)
        except ValueError as error:
            raise InvalidInput("not an IP address") from error
        if not self._may(ip):
            raise AddressRefused("the address is not public")

    def _may(self, ip: Address) -> bool:
        inner = _inner(ip)
        return any(ip in network or (inner is not None and inner in network) for network in self._allow) or is_public(inner or ip)

    def resolve_now(self, host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
        """The addresses of a host that may be dialled, in the resolver's order; blocks.

        Raises:
            HostUnknown: it has none.
            AddressRefused: none of them may be dialled.
        """
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise HostUnknown("the host has no address") from error
        allowed: list[tuple[socket.AddressFamily, str]] = [
            (family, str(address[0])) for family, _, _, _, address in found if self._may(ipaddress.ip_address(address[0]))
        ]
        if not allowed:
            raise AddressRefused("the host has no public address")
        return allowed

    async def resolve(self, host: str, port: int, timeout: float = RESOLVE_TIMEOUT) -> list[tuple[socket.AddressFamily, str]]:
        """`resolve_now` in a thread; HostUnknown after `timeout` seconds. Literal addresses need no thread."""
        with suppress(ValueError):
            ip = ipaddress.ip_address(host)
            self.check(ip)
            return [(socket.AF_INET if ip.version == 4 else socket.AF_INET6, str(ip))]
        if self._threads is None:
            self._threads = ThreadPoolExecutor(16, thread_name_prefix="resolve")
        try:
            return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(self._threads, self.resolve_now, host, port), timeout)
        except TimeoutError as error:
            raise HostUnknown("the resolver did not answer in time") from error


def is_public(ip: Address) -> bool:
    """Whether an address belongs to the public internet; embedded IPv4 addresses are the caller's."""
    if ip.version == 6 and ip not in _GLOBAL_UNICAST:
        return False
    return not any(ip in network for network in _NOT_PUBLIC)


def _inner(ip: Address) -> ipaddress.IPv4Address | None:
    if ip.version == 6 and any(ip in network for network in _EMBEDDING):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a URL gave: its last hop, type as the server says it (lower case, without parameters), and its bytes."""

    url: str
    content_type: str
    body: bytes


def fetch(url: str, netguard: Netguard, *, max_bytes: int, timeout: float = 15.0, max_redirects: int = 5) -> Fetched:
    """GETs what a user named; blocks at most about `timeout` seconds and reads at most `max_bytes`.

    Each hop is checked again. Proxies, .netrc, cookies and credentials play no part.

    Raises:
        InvalidInput: no http(s) URL (code invalid_url), or larger than max_bytes (code too_large).
        AddressRefused: a hop leads to an address that may not be reached.
        RemoteFailed: anything else: no answer in time, an error status, too many redirects.
    """
    deadline = time.monotonic() + timeout
    hop = normalise(url)
    for _ in range(max_redirects + 1):
        if hop is None:
            raise InvalidInput("not an http or https URL", code="invalid_url")
        try:
            with _get(hop, netguard, deadline) as answer:
                if answer.status not in REDIRECTS:
                    return _read(hop, answer, max_bytes)
                hop = normalise(answer.headers.get("Location", ""), hop)
        except (OSError, http.client.HTTPException, HostUnknown, ValueError) as error:
            raise _failed() from error
    raise _failed()


def _failed() -> RemoteFailed:
    return RemoteFailed("the URL could not be fetched")


def _read(url: str, answer: http.client.HTTPResponse, max_bytes: int) -> Fetched:
    if answer.status != 200:
        raise _failed()
    declared = answer.length
    body = b"" if declared is not None and declared > max_bytes else answer.read(max_bytes + 1)
    if max(declared or 0, len(body)) > max_bytes:
        raise InvalidInput(f"more than {max_bytes} bytes", code="too_large")
    if declared is not None and len(body) < declared:
        raise _failed()
    return Fetched(url, answer.headers.get_content_type(), body)


@contextmanager
def _get(url: str, netguard: Netguard, deadline: float) -> Iterator[http.client.HTTPResponse]:
    """The answer to one GET, cut off at the deadline (monotonic) however slowly it drips."""
    host, port = host_port(url)
    connected = _dial(netguard.resolve_now(host, port), port, deadline)
    if url.startswith("https:"):
        connected = ssl.create_default_context().wrap_socket(connected, server_hostname=host)
    cut = threading.Timer(max(deadline - time.monotonic(), 0.0), _shut, [connected])
    cut.daemon = True
    cut.start()
    connection = http.client.HTTPConnection(host, port)
    connection.sock = connected
    try:
        authority, target = _target(url)
        connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
        for name, value in (("Host", authority), ("User-Agent", "filigrane"), ("Accept", "*/*"), ("Connection", "close")):
            connection.putheader(name, value)
        connection.endheaders()
        with connection.getresponse() as answer:
            yield answer
        if time.monotonic() >= deadline:
            raise TimeoutError
    finally:
        cut.cancel()
        connected.close()


def _dial(addresses: Sequence[tuple[socket.AddressFamily, str]], port: int, deadline: float) -> socket.socket:
    last: OSError = TimeoutError()
    for family, address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        connected = socket.socket(family, socket.SOCK_STREAM)
        connected.settimeout(left)
        try:
            connected.connect((address, port))
        except OSError as error:
            connected.close()
            last = error
        else:
            return connected
    raise last


def _target(url: str) -> tuple[str, str]:
    """(Host header, request target) of a normalised URL."""
    rest = url.partition("://")[2]
    authority, slash, path = rest.partition("/")
    return authority, slash + path or "/"


def _shut(connected: socket.socket) -> None:
    # Not the method: that of a TLS socket would take its state away from the thread that reads.
    with suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
