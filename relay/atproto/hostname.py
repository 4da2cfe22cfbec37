"""How a host is named: in a DID document's service endpoint, in a crawl request, in the settings.

All spellings of one host come out as one `Endpoint`, so that endpoints can be compared. Called by `diddoc` and by
whatever takes a host name from outside. Whether a host may be contacted is decided elsewhere.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from relay.atproto.errors import SyntaxInvalid
from relay.atproto.syntax import is_handle

REASONS = frozenset({"hostname-syntax"})

MAX_ENDPOINT = 2048

_ENDPOINT = re.compile(
    r"(?:(?P<scheme>https?|wss?)://)?"
    r"(?P<host>[a-z0-9.-]+|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?:[/?#][!-~]*)?",
    re.IGNORECASE | re.ASCII,
)
_TLS = ("https", "wss")

# Top-level names that are never delegated, as the handle specification lists them.
_LOCAL_NAMES = frozenset({"alt", "arpa", "example", "internal", "invalid", "local", "localhost", "onion"})


class Endpoint(NamedTuple):
    """A host and how to talk to it. `hostname` is lower case and holds the port when it is not the scheme's own."""

    hostname: str
    tls: bool

    @property
    def url(self) -> str:
        """The base URL, without a slash at the end."""
        return f"{'https' if self.tls else 'http'}://{self.hostname}"

    def same_host(self, other: Endpoint | None) -> bool:
        """Whether both are one host, in whatever scheme they are written: of one name and port, or one name alone."""
        # Nearly always it is the same or another name. A document that says "http://" of a host with TLS means that
        # host: indigo compares the names.
        return self == other or (
            other is not None
            and self.tls != other.tls
            and (self.hostname == other.hostname or self._name_and_port == other._name_and_port)
        )

    @property
    def _name_and_port(self) -> str:
        bare = self.hostname.rpartition("]")[2]
        return self.hostname if ":" in bare else f"{self.hostname}:{443 if self.tls else 80}"

    @property
    def is_local(self) -> bool:
        """True for a name or an address literal that no host on the public network goes by."""
        if self.hostname.startswith("["):
            return True
        host = self.hostname.partition(":")[0]
        top = host.rpartition(".")[2]
        return top in _LOCAL_NAMES or top.isdigit()


def parse_endpoint(text: str) -> Endpoint:
    """Read a host name or a URL of the host: "pds.example.com", "https://Pds.Example.com./", "ws://localhost:2583/xrpc/".

    A host is its name and port, so a path or a query says nothing. Without a scheme it is https, but http for
    localhost. SyntaxInvalid `hostname-syntax` for user information, another scheme, and for what is not a domain name
    of two labels, address literal or localhost.
    """
    match = _ENDPOINT.fullmatch(text) if len(text) <= MAX_ENDPOINT else None
    if match is None:
        raise SyntaxInvalid("hostname-syntax", repr(text[:80]))
    host = _normal_host(match["host"].lower())
    scheme = (match["scheme"] or ("http" if host == "localhost" else "https")).lower()
    tls = scheme in _TLS
    port = int(match["port"] or 0)
    if host is None or port > 0xFFFF:
        raise SyntaxInvalid("hostname-syntax", repr(text[:80]))
    if port and port != (443 if tls else 80):
        host = f"{host}:{port}"
    return Endpoint(host, tls)


def _normal_host(host: str) -> str | None:
    """The one spelling of a name or address literal, or None when it is neither."""
    try:
        if host.startswith("["):
            return f"[{IPv6Address(host[1:-1])}]"
        host = host.removesuffix(".")
        if host == "localhost" or is_handle(host):
            return host
        return str(IPv4Address(host))
    except ValueError:
        return None
