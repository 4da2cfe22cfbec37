"""Query parameters and JSON bodies, checked: what a route gets from here has the type and range it asked for.

Used by `xrpc`, `admin_api`, `firehose` and `dash`. Every refusal is a 400 `InvalidRequest` that names the parameter. An
empty optional parameter counts as absent, as older clients send `cursor=` for the first page; unknown ones are ignored.
Of a repeated one the first counts, as in indigo; what changes something refuses it (`refuse_repeated`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from werkzeug.datastructures import MultiDict

from relay.admin.actions import LimitChange
from relay.atproto import syntax
from relay.atproto.errors import SyntaxInvalid
from relay.atproto.fields import MAX_SEQ
from relay.atproto.hostname import Endpoint, parse_endpoint
from relay.hosts.hosts import Position
from relay.kit.values import MAX_COUNT, parse_bool
from relay.store.hosts import RATE_TIERS
from relay.web.errors import invalid

Query = MultiDict[str, str]
NO_RATE = -1


def refuse_repeated(query: Query) -> None:
    """Refuse parameters that are given more than once: an admin's may mean another one than the first."""
    for name, values in query.lists():
        if len(values) > 1:
            raise invalid(f"{name} is given more than once")


def optional(query: Query, name: str) -> str | None:
    """The value of a parameter, or None when it is absent or empty."""
    return query.get(name) or None


def required(query: Query, name: str) -> str:
    """The value of a parameter that must be there."""
    value = optional(query, name)
    if value is None:
        raise invalid(f"{name} is required")
    return value


def whole_number(text: str, name: str, *, minimum: int = 0, maximum: int = MAX_COUNT) -> int:
    """The integer in plain ASCII digits that `text` is."""
    # The length first: int() takes quadratic time, and str.isdigit alone takes digits of every script.
    if len(text) > 16 or not (text.isascii() and text.isdigit()):
        raise invalid(f"{name} must be an integer from {minimum} to {maximum}")
    value = int(text)
    if not minimum <= value <= maximum:
        raise invalid(f"{name} must be an integer from {minimum} to {maximum}")
    return value


def seq(text: str, name: str) -> int:
    """The seq in plain ASCII digits that `text` is; MAX_SEQ for every number above it, which no event reaches."""
    if not (text.isascii() and text.isdigit()):
        raise invalid(f"{name} must be an integer, 0 or above")
    digits = text.lstrip("0")
    # The length first, as above.
    return min(int(digits or "0"), MAX_SEQ) if len(digits) <= 16 else MAX_SEQ


def limit(query: Query, *, default: int, maximum: int) -> int:
    """The page size, 1 to `maximum`."""
    text = optional(query, "limit")
    return default if text is None else whole_number(text, "limit", minimum=1, maximum=maximum)


def cursor(query: Query) -> int:
    """The key after which a page starts; 0 for the first page. Opaque to clients, a row id to us."""
    text = optional(query, "cursor")
    return 0 if text is None else whole_number(text, "cursor")


def flag(query: Query, name: str, *, default: bool | None = None) -> bool:
    """A true or false; without a `default` it must be given."""
    text = required(query, name) if default is None else optional(query, name)
    if text is None:
        assert default is not None
        return default
    try:
        return parse_bool(text)
    except ValueError as error:
        raise invalid(f"{name} is {error}") from None


def hostname(text: str) -> str:
    """The hostname that `text` names, by itself or as an address: `pds.example.com`, `https://pds.example.com`."""
    try:
        return parse_endpoint(text.strip()).hostname
    except SyntaxInvalid as error:
        raise invalid(f"not a hostname: {error}") from None


def domain(text: str) -> str:
    """The domain that `text` names: a host with a port is not one, as a ban holds for all ports of all its hosts."""
    name = hostname(text)
    if name.rpartition(":")[2].isdigit():
        raise invalid("a domain has no port: block the single host instead")
    return name


def endpoint(text: str, name: str) -> Endpoint:
    """The address that `text` is."""
    try:
        return parse_endpoint(text)
    except SyntaxInvalid as error:
        raise invalid(f"{name}: {error}") from None


def did(text: str) -> str:
    """`text`, known to be a DID."""
    return _checked(syntax.check_did, text, "did")


def nsid(text: str, name: str) -> str:
    """`text`, known to be an NSID."""
    return _checked(syntax.check_nsid, text, name)


def _checked(check: Callable[[str], None], text: str, name: str) -> str:
    try:
        check(text)
    except SyntaxInvalid as error:
        raise invalid(f"{name}: {error}") from None
    return text


Body = Mapping[str, Any]


def json_body(data: bytes) -> Body:
    """The JSON object that a request's body is, names in lower case. Its size is bounded before it gets here.

    One that gives a name twice is refused, as `refuse_repeated` does with a query.
    """
    try:
        body = json.loads(data, object_pairs_hook=_object)
    # Deep nesting ends the parser with RecursionError; text that is not UTF-8 raises a ValueError too.
    except (ValueError, RecursionError):
        raise invalid("the body is not JSON") from None
    if not isinstance(body, dict):
        raise invalid("the body is not a JSON object")
    return body


def _object(pairs: list[tuple[str, Any]]) -> Body:
    # Go's decoder, which clients were written against, takes field names in any case: `Domain` and `domain`.
    body = {name.lower(): value for name, value in pairs}
    if len(body) < len(pairs):
        raise invalid("a name is given more than once in the body")
    return body


def body_text(body: Body, name: str) -> str:
    """A text field of the body that must be there."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise invalid(f"{name} is required and must be text")
    # PostgreSQL has no NUL in text, and no name or DID has one either.
    if "\0" in value or len(value) > 2048:
        raise invalid(f"{name} is malformed")
    return value


def body_texts(body: Body, name: str, *, maximum: int) -> list[str]:
    """A list of texts of the body, at most `maximum` of them; empty when it is not there."""
    values = body.get(name, [])
    if not isinstance(values, list) or len(values) > maximum or not all(isinstance(value, str) for value in values):
        raise invalid(f"{name} must be a list of at most {maximum} texts")
    return values


def body_flag(body: Body, name: str) -> bool | None:
    """A true or false of the body; None when it is not there."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{name} must be true or false")
    return value


def body_number(body: Body, name: str, *, minimum: int = 0) -> int | None:
    """A whole number of the body, `minimum` or above; None when it is not there."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= MAX_COUNT:
        raise invalid(f"{name} must be an integer from {minimum} to {MAX_COUNT}")
    return value


def position(body: Body) -> Position:
    """Where to begin with a host's stream: a number of its, `oldest` or `live`."""
    value = body.get("cursor")
    if value in ("oldest", "live"):
        return "oldest" if value == "oldest" else "live"
    number = body_number(body, "cursor") if not isinstance(value, str) else None
    if number is None:
        raise invalid('cursor must be a number, "oldest" or "live"')
    return number


def limit_change(body: Body) -> LimitChange:
    """The limits that a body changes, one at least."""
    change = LimitChange(
        body_number(body, "repo_limit"),
        # A host whose rate is zero would hang for ever instead of being blocked. -1 is what `pds/list` shows of a host
        # that is not connected: sent back, it changes nothing.
        {tier: body_number(body, tier, minimum=1) for tier in RATE_TIERS if body.get(tier, NO_RATE) != NO_RATE},
        body_flag(body, "account_limit_alerts_silenced"),
    )
    if change.account_limit is None and not change.rates and change.alerts_silenced is None:
        raise invalid("no limit is given")
    return change
