"""How the values of settings are written: durations, sizes, addresses, lists.

Pure functions from text, used by `config` for the environment and by `web` for query parameters of the same form. Each
raises ValueError with the words that follow the variable's name in an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class Bind(NamedTuple):
    """An address to listen on. An empty host means every interface, as in Go's `:2470`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def shown(value: object) -> str:
    """A setting's value as its operator might have written it; durations as plain seconds."""
    if type(value) is tuple:
        return ",".join(map(str, value))
    if type(value) is bool:
        return str(value).lower()
    return f"{value:g}" if type(value) is float else str(value)


MAX_LINE = 200
# The largest number that all readers of JSON hold exactly, and the last seq that the protocol has.
MAX_COUNT = 2**53 - 1
MAX_DIGITS = 20
# No machine has more.
MAX_CONNECTIONS = 1_000_000
# How the addresses of PostgreSQL databases begin.
POSTGRES = ("postgres://", "postgresql://", "postgres=")

_DURATION_UNITS = {
    "ns": 1e-9,
    "us": 1e-6,
    "\N{MICRO SIGN}s": 1e-6,
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|\N{MICRO SIGN}s|ms|s|m|h|d)", re.ASCII)
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_count_or_auto(text: str) -> int | None:
    """A number >= 0, or None for `auto`."""
    return None if text.strip().lower() == "auto" else parse_count(text)


def parse_duration(text: str) -> float:
    """Seconds from a Go duration such as `72h`, `1h30m` or `500ms`; also days (`3d`). `0` is zero."""
    if text == "0":
        return 0.0
    if not re.fullmatch(rf"(?:{_DURATION_PART.pattern})+", text):
        raise ValueError("not a duration such as 72h, 90s or 500ms")
    return sum(float(number) * _DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(text))


def parse_size(text: str) -> int:
    """Bytes from `1000`, `64k`, `512M`, `20GiB`; units are powers of 1024."""
    match = re.fullmatch(r"(\d+)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if not match:
        raise ValueError("not a size such as 512M or 20G")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def parse_size_or_auto(text: str) -> int | None:
    """Bytes; None for `auto`."""
    return None if text == "auto" else parse_size(text)


def parse_bind(text: str) -> Bind:
    """An address from `:2470`, `127.0.0.1:2470` or `[::1]:2470`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError("not an address such as :2470 or 127.0.0.1:2470")
    return Bind(host.strip("[]"), int(port))


def parse_bool(text: str) -> bool:
    """True or False from the words that Go's and shell's users write."""
    word = text.strip().lower()
    if word in ("1", "t", "true", "yes", "on"):
        return True
    if word in ("", "0", "f", "false", "no", "off"):
        return False
    raise ValueError("not true or false")


def parse_list(text: str) -> tuple[str, ...]:
    """The comma-separated parts of a text, without blanks and empty ones."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks in a comma-separated list of addresses and `address/bits`."""
    return tuple(ip_network(part) for part in parse_list(text))


def parse_count(text: str) -> int:
    """A whole number, zero or above, that everybody can keep: no size of anything is larger."""
    # The digits first: `int` takes quadratic time.
    if not text.strip().isdigit() or len(text) > MAX_DIGITS or int(text) > MAX_COUNT:
        raise ValueError(f"not a whole number up to {MAX_COUNT}")
    return int(text)


def parse_places(text: str) -> int:
    """A number of connections, zero or above."""
    return _at_most(MAX_CONNECTIONS, parse_count(text))


def parse_connections(text: str) -> int:
    """A number of connections, above zero."""
    return _at_most(MAX_CONNECTIONS, parse_positive(text))


def parse_seq(text: str) -> int:
    """The seq to begin with, which leaves half of all seqs for those that come after it."""
    return _at_most(MAX_COUNT // 2, parse_count(text))


def _at_most(maximum: int, number: int) -> int:
    if number > maximum:
        raise ValueError(f"above {maximum}")
    return number


def parse_positive(text: str) -> int:
    """A whole number above zero."""
    number = parse_count(text)
    if not number:
        raise ValueError("not above zero")
    return number


def one_of(*words: str) -> Callable[[str], str]:
    """A parser that takes only the given words."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"not one of {', '.join(words)}")
        return text.lower()

    return parse


def parse_database_url(text: str) -> str:
    """A `sqlite://PATH` or `postgres://…` address; with `=` in the place of `://`, as older settings have it.

    What indigo's driver reads behind a `?` in SQLite's is left out: it is not part of the file's name.
    """
    if text.startswith(POSTGRES):
        return text
    found = re.fullmatch(r"sqlite(?:://|=)(?:file:)?([^?]+)(?:\?.*)?", text)
    if found is None:
        raise ValueError("not a sqlite:// or postgres:// address")
    if found[1].startswith(":") or PurePosixPath(found[1]).name in ("", "..") or found[1].endswith("/"):
        raise ValueError("not the name of a file")
    return f"sqlite://{found[1]}"


def parse_http_url(text: str) -> str:
    """An http(s) base address without a path, and without a slash at its end."""
    return _http_url(text, "/").rstrip("/")


def parse_http_urls(text: str) -> tuple[str, ...]:
    """One or more http(s) base addresses, comma-separated, each perhaps with a path; without slashes at their ends."""
    urls = tuple(_http_url(part, r"/[^?#\s]*").rstrip("/") for part in parse_list(text))
    if not urls:
        raise ValueError("is empty")
    return urls


def parse_optional_http_url(text: str) -> str:
    """Like `parse_http_url`, or empty."""
    return parse_http_url(text) if text else ""


def parse_optional_page_url(text: str) -> str:
    """An http(s) address with any path and query, or empty."""
    return _http_url(text, r"[/?#]\S*") if text else ""


def _http_url(text: str, rest: str) -> str:
    """`text`, known to be an http(s) address, with no more after its host than the pattern `rest`."""
    if not re.fullmatch(rf"https?://[^/?#\s]+(?:{rest})?", text):
        raise ValueError("not an http:// or https:// address")
    return text


def parse_line(text: str) -> str:
    """A short line of text for people, or empty."""
    if len(text) > MAX_LINE or not text.isprintable():
        raise ValueError(f"not one line of up to {MAX_LINE} characters")
    return text.strip()


def parse_optional_path(text: str) -> Path | None:
    """A path, or None for nothing."""
    return Path(text) if text else None


def parse_share(text: str) -> float:
    """A share above 0, up to 1."""
    if not re.fullmatch(r"\d+(?:\.\d+)?|\.\d+", text) or not 0 < float(text) <= 1:
        raise ValueError("not a share such as 0.8, above 0 and up to 1")
    return float(text)


def parse_positive_duration(text: str) -> float:
    """Like `parse_duration`, above zero."""
    seconds = parse_duration(text)
    if not seconds:
        raise ValueError("not above zero")
    return seconds
