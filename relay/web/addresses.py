"""Who a request comes from, also behind reverse proxies, and under which key its address is counted.

Used by the limits of `firehose`, `auth` and `xrpc`. Pure functions over header text.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The address of the client: `peer` itself, or the last untrusted one in X-Forwarded-For.

    Each proxy appends whom it got the request from, so the list is read from its end, for only as long as the
    one who appended is trusted: what stands further left may be invented by the client.
    """
    address = _parsed(peer)
    if address is None:
        return peer
    for hop in reversed(forwarded_for.split(",")):
        if not _is_trusted(address, trusted):
            break
        previous = _parsed(hop)
        if previous is None:
            break
        address = previous
    return str(address)


def counted_as(address: str) -> str:
    """The key that limits count an address under: a whole /64 in IPv6, since one client holds at least that."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed, 64), strict=False))
    return address


def is_proxy(peer: str, trusted: Sequence[Network]) -> bool:
    """True when what `peer` says in X-Forwarded headers is believed."""
    address = _parsed(peer)
    return address is not None and _is_trusted(address, trusted)


def _parsed(text: str) -> Address | None:
    try:
        address = ip_address(text.strip().strip("[]").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted if network.version == address.version)
