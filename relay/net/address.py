"""Which addresses an outgoing connection may go to: a name is looked up once, and only public addresses come back.

Called by `http` before each connect; the connection then goes to the address that was checked, so a name that
changes its answer in between gains nothing. Knows no protocol above IP.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

import gevent
from gevent.resolver.ares import Resolver as AresResolver

from relay.kit.errors import AddressRefused

# IANA's special-purpose registry for IPv4: whatever is not an ordinary host on the internet.
_REFUSED_V4 = tuple(
    ip_network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)

# Of IPv6 only global unicast is ever public: that leaves out loopback, link-local, unique local, multicast, and the
# forms that carry an IPv4 address, a way around the list above, such as mapped ones (::ffff:0:0/96).
_GLOBAL_V6 = ip_network("2000::/3")
_REFUSED_V6 = tuple(
    ip_network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries an IPv4 address too
        "3fff::/20",
    )
)

# Where a machine has IPv6 alone, its name server gives hosts with IPv4 alone by these: the last 32 bits are theirs.
_NAT64 = ip_network("64:ff9b::/96")

# A name can have thousands, and each one costs an attempt to connect: of each family this many are looked at.
MAX_ADDRESSES = 8

_RESOLV_CONF = "/etc/resolv.conf"
_QUERY_SECONDS = 2.0
_QUERY_TRIES = 2


class Address(NamedTuple):
    """An address that passed the check, as `socket` takes it."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


def is_public(ip: str | IPv4Address | IPv6Address) -> bool:
    """Whether `ip` is an ordinary address on the internet. Raises ValueError when it is not an IP address."""
    address = ip_address(ip) if isinstance(ip, str) else ip
    if isinstance(address, IPv4Address):
        return not any(address in block for block in _REFUSED_V4)
    # A scope names an interface of this machine.
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return is_public(IPv4Address(address.packed[-4:]))
    return address in _GLOBAL_V6 and not any(address in block for block in _REFUSED_V6)


def resolve_public(host: str, port: int, allow_insecure: bool, timeout: float = 10.0) -> list[Address]:
    """The addresses of `host` that may be connected to, in the order to try them; every address if `allow_insecure`.
    Of more than MAX_ADDRESSES of a family the others are left out.

    Raises AddressRefused: `name-unresolved` when there is no address within `timeout` seconds, `address-refused`
    when there are only such as must not be used.
    """
    found = _look_up(host, port, timeout)
    allowed = [address for address in found if allow_insecure or is_public(str(address.sockaddr[0]))]
    if not allowed:
        raise AddressRefused("address-refused", f"{host} is {found[0].sockaddr[0]}")
    return allowed


def _look_up(host: str, port: int, timeout: float) -> list[Address]:
    try:
        with gevent.Timeout(timeout, TimeoutError("no answer in time")):
            answers = _names.current().getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressRefused("name-unresolved", f"{host}: {error}") from None
    if not answers:
        raise AddressRefused("name-unresolved", host)
    found: list[Address] = []
    families: Counter[int] = Counter()
    for family, _, _, _, sockaddr in answers:
        families[family] += 1
        if families[family] <= MAX_ADDRESSES:
            found.append(Address(family, sockaddr))
    return found


class _Names:
    """The name resolver: c-ares on the hub. The threads of gevent's default one would all hang on slow strangers."""

    def __init__(self) -> None:
        self._resolver: AresResolver | None = None
        self._changed = 0

    def current(self) -> AresResolver:
        """The resolver, made anew when the machine's name servers have changed: c-ares reads them once."""
        try:
            changed = os.stat(_RESOLV_CONF).st_mtime_ns
        except OSError:
            changed = 0
        if self._resolver is None or changed != self._changed:
            self._resolver, self._changed = AresResolver(timeout=_QUERY_SECONDS, tries=_QUERY_TRIES), changed
        return self._resolver


_names = _Names()
