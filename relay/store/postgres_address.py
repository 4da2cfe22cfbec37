"""What a PostgreSQL address says, in the words of libpq: addresses that indigo's driver takes are taken here as well.

Used by `postgres_pool`. That driver knows three things that libpq does not: `postgres=` before a list of parameters, an
`@` in a password, and parameters of the session itself, such as `search_path`. Must not know what is connected to.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

from relay.kit.errors import StoreError

LISTED = "postgres="

# How that driver sends its statements, and how many connections it keeps, which is not the server's to know.
_DRIVERS_OWN = re.compile(r"pool_\w+|default_query_exec_mode|\w+_cache_(?:capacity|mode)")
_AUTHORITY = re.compile(r"(postgres(?:ql)?://)([^/?#]*)@", re.IGNORECASE)
_PARAMETER = re.compile(r"\s*(\w[\w.]*)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)\s*", re.ASCII)
_ESCAPED = re.compile(r"\\(.)")


def parameters_of(url: str) -> dict[str, object]:
    """The parameters for `psycopg2.connect`. Raises StoreError `store-unavailable` when `url` cannot be read."""
    try:
        known, session = _read_list(url.removeprefix(LISTED)) if url.startswith(LISTED) else _read_url(url)
    except (psycopg2.ProgrammingError, ValueError):
        # The error quotes parts of the address, and with them maybe the password.
        raise StoreError("store-unavailable", "the postgres:// address cannot be read") from None
    settings = [f"-c {name}={_escaped(value)}" for name, value in session.items() if not _DRIVERS_OWN.fullmatch(name)]
    if settings:
        known["options"] = " ".join([*([known["options"]] if "options" in known else []), *settings])
    return dict(known)


def _read_url(url: str) -> tuple[dict[str, str], dict[str, str]]:
    """What libpq knows, and what is the session's."""
    # The last `@` ends the password, and the first one does so for libpq.
    url = _AUTHORITY.sub(lambda found: f"{found[1]}{found[2].replace('@', '%40')}@", url, count=1)
    address, _, query = url.partition("?")
    parts = [part for part in query.split("&") if part]
    named = [(parse_qsl(part, keep_blank_values=True, strict_parsing=True)[0], part) for part in parts]
    kept = "&".join(part for (name, _), part in named if _is_known(name))
    session = {name: value for (name, value), _ in named if not _is_known(name)}
    return parse_dsn(f"{address}?{kept}" if kept else address), session


def _read_list(text: str) -> tuple[dict[str, str], dict[str, str]]:
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        part = _PARAMETER.match(text, at)
        if part is None:
            raise ValueError
        name, value = part.groups()
        name = "dbname" if name == "database" else name
        found[name] = _ESCAPED.sub(r"\1", value[1:-1] if value.startswith("'") else value)
        at = part.end()
    known = {name: value for name, value in found.items() if _is_known(name)}
    session = {name: value for name, value in found.items() if not _is_known(name)}
    return parse_dsn(make_dsn(**known)) if known else {}, session


def _is_known(name: str) -> bool:
    """Whether this libpq has a parameter of that name."""
    try:
        parse_dsn(f"{name}=''")
    except psycopg2.ProgrammingError:
        return False
    return True


def _escaped(value: str) -> str:
    return re.sub(r"([\s\\])", r"\\\1", value)
