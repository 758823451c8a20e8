"""URLs as a browser reads them. One parser (WHATWG, by ada) for what is checked, dialled, compared and stored.

Everything but `normalise` expects a URL that `normalise` made: absolute, ASCII, without credentials and fragment.
"""

from __future__ import annotations

import ipaddress
import re
from functools import cache, lru_cache
from typing import Final

from ada_url import URL
from publicsuffixlist import PublicSuffixList

MAX_LENGTH: Final = 2048
"""Characters of a URL that is kept; longer ones are not crawled."""
_PLAIN: Final = re.compile(r"/(?:[\w~-][\w.~-]*/)*(?:[\w~-][\w.~-]*)?(?:\?[\w.~=&+-]*)?", re.ASCII)
"""A path from the root in which nothing has to be changed: most links of most pages."""
_PORTS: Final = {"http": 80, "https": 443}


def normalise(url: str, base: str | None = None) -> str | None:
    """The absolute http(s) URL that a browser would ask for, or None when there is none.

    Args:
        url: absolute, or relative to `base`; white space, tabs and newlines are dropped as browsers do.
        base: an absolute URL.

    Returns:
        ASCII of at most MAX_LENGTH characters, host in lower case and punycode, no default port, no fragment, credentials dropped.
        None for other schemes, for what cannot be parsed and for what is too long, also for a host that no name server can know.
    """
    if len(url) > 2 * MAX_LENGTH:
        return None
    if base is not None and len(url) < MAX_LENGTH // 2 and _PLAIN.fullmatch(url):
        start = _origin_of(base)
        return None if start is None else start + url
    return _parse(url, base)


def _parse(url: str, base: str | None) -> str | None:
    try:
        parsed = URL(url, base)
        href = parsed.href
        if not href.startswith(("http://", "https://")):
            return None
        if "@" in href:
            parsed.username = parsed.password = ""
            href = parsed.href
    except ValueError:
        return None
    href = href.partition("#")[0]
    return href if len(href) <= MAX_LENGTH and _is_host(parsed.hostname) else None


def _is_host(name: str) -> bool:
    """Not longer than names can be: 253 characters, 63 between two dots."""
    return len(name) <= 254 and all(len(label) <= 63 for label in name.split("."))


@lru_cache(maxsize=4096)
def _origin_of(base: str) -> str | None:
    url = _parse(base, None)
    return origin(url) if url is not None and len(origin(url)) <= MAX_LENGTH // 2 else None


def origin(url: str) -> str:
    """`scheme://host[:port]` of a normalised URL; robots.txt is per origin."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{_authority(rest)}"


def host_port(url: str) -> tuple[str, int]:
    """(host, port) to dial for a normalised URL; the brackets of an IPv6 address are taken off."""
    scheme, _, rest = url.partition("://")
    return _split(_authority(rest), _PORTS.get(scheme, 80))


def registrable_domain(url_or_host: str) -> str:
    """The unit of leases and politeness: the domain that somebody registered, by the public suffix list.

    Addresses and names of one label give `host:port` instead; a public suffix itself gives the host.
    """
    scheme, separator, rest = url_or_host.partition("://")
    if separator:
        return _domain(_authority(rest), _PORTS.get(scheme, 80))
    return _domain(_authority(url_or_host), 80)


def _authority(rest: str) -> str:
    """What stands before the first slash, question mark or hash."""
    return rest.partition("/")[0].partition("?")[0].partition("#")[0]


def _split(authority: str, default_port: int) -> tuple[str, int]:
    host, _, port = authority.rpartition(":") if not authority.endswith("]") and ":" in authority else (authority, "", "")
    return host.strip("[]"), int(port) if port.isdecimal() else default_port


@lru_cache(maxsize=65_536)
def _domain(authority: str, default_port: int) -> str:
    host, port = _split(authority.lower(), default_port)
    name = host.rstrip(".")
    if "." not in name or is_address(name):
        return f"[{host}]:{port}" if ":" in host else f"{name}:{port}"
    return str(_suffixes().privatesuffix(name) or name)


def is_address(host: str) -> bool:
    """Whether a host (without brackets) is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()
