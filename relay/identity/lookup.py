"""Asks the network who a DID is: the PLC directory for did:plc, the host itself for did:web.

Called by the resolver's workers, one call per DID and lookup. Retries what may pass, keeps to each host's pace,
and turns every answer into a fact or an IdentityError. Must not know of caches.
"""

from __future__ import annotations

import random
import re
import time
from typing import NamedTuple

import gevent
from cachetools import LRUCache

from relay.atproto import diddoc
from relay.atproto.errors import DidDocumentError
from relay.identity.identity import Fact, Identity, Tombstone
from relay.kit import metrics
from relay.kit.errors import AddressRefused, HttpError, IdentityError
from relay.kit.limits import Pace
from relay.net.http import GuardedHttp, Response

# A lookup ends within this time, retries and waiting for its turn included.
LOOKUP_SECONDS = 20.0
REQUEST_SECONDS = 8.0
MAX_DOCUMENT_BYTES = 64 << 10

# The directory fails now and then and is worth insisting; a stranger's host is worth one more try.
PLC_TRIES = 5
WEB_TRIES = 2
FIRST_PAUSE_SECONDS = 0.25
LONGEST_RETRY_AFTER = 60.0
DEFAULT_RETRY_AFTER = 5.0

PLC_PER_SECOND = 500.0
PLC_BURST = 500
WEB_PER_SECOND = 5.0
WEB_BURST = 20
WEB_HOSTS_REMEMBERED = 4096

_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_PLC = re.compile(r"did:plc:[a-z2-7]{24}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label starts with a letter: an IP address is no hostname.
_WEB = re.compile(rf"did:web:((?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])?)")
_WEB_LOCAL = re.compile(r"did:web:localhost(?:%3[Aa](\d{1,5}))?")


class Target(NamedTuple):
    """Where the document of a DID is. `host` is whom the request is counted against."""

    is_plc: bool
    host: str
    url: str


def locate(did: str, plc_host: str, *, allow_insecure: bool) -> Target:
    """Where to ask for `did`. Raises IdentityError `did-not-found` for a DID that this network does not use.

    did:web is a bare hostname over https; localhost, with or without a port and over http, only where insecure hosts
    are allowed. Specification: https://atproto.com/specs/did
    """
    if _PLC.fullmatch(did):
        return Target(True, plc_host, f"{plc_host}/{did}")
    if len(did) <= 8 + 253 and (match := _WEB.fullmatch(did)):
        return Target(False, match[1], f"https://{match[1]}/.well-known/did.json")
    if allow_insecure and (match := _WEB_LOCAL.fullmatch(did)):
        host = f"localhost:{match[1]}" if match[1] else "localhost"
        return Target(False, host, f"http://{host}/.well-known/did.json")
    raise IdentityError("did-not-found", "neither a did:plc nor a did:web hostname")


class Lookup:
    """The two ways to ask. The directory's address is the operator's word, so it may be plain and private."""

    def __init__(self, http: GuardedHttp) -> None:
        self._web = http
        self._plc = http.for_operator()
        self._plc_pace = Pace(PLC_PER_SECOND, PLC_BURST)
        self._web_paces: LRUCache[str, Pace] = LRUCache(WEB_HOSTS_REMEMBERED)
        metrics.QUEUE_SIZE.labels("web-paces").set_function(lambda: len(self._web_paces))
        metrics.QUEUE_CAPACITY.labels("web-paces").set(WEB_HOSTS_REMEMBERED)

    def fetch(self, did: str, target: Target) -> Fact:
        """What the network says about `did`, within LOOKUP_SECONDS. Raises IdentityError."""
        deadline = time.monotonic() + LOOKUP_SECONDS
        pace = self._pace(target)
        for attempt in range(PLC_TRIES if target.is_plc else WEB_TRIES):
            if attempt:
                gevent.sleep(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            _wait_for_turn(pace, deadline)
            try:
                response = self._ask(target, deadline)
            except HttpError as error:
                if error.reason == "http-too-large":
                    raise IdentityError("did-document", str(error)) from None
                failure = str(error)
                continue
            except AddressRefused as error:
                if error.reason == "address-refused":
                    raise IdentityError("did-not-found", str(error)) from None
                failure = str(error)
                continue
            if response.status not in _PASSING:
                return _fact(did, target, response)
            failure = f"HTTP {response.status}"
            if response.status == 429 or "Retry-After" in response.headers:
                pace.hold(time.monotonic(), retry_after(response))
        raise IdentityError("did-unavailable", failure)

    def _ask(self, target: Target, deadline: float) -> Response:
        timeout = min(REQUEST_SECONDS, max(1.0, deadline - time.monotonic()))
        http = self._plc if target.is_plc else self._web
        return http.get(target.url, timeout=timeout, max_bytes=MAX_DOCUMENT_BYTES)

    def _pace(self, target: Target) -> Pace:
        if target.is_plc:
            return self._plc_pace
        pace: Pace | None = self._web_paces.get(target.host)
        if pace is None:
            pace = self._web_paces[target.host] = Pace(WEB_PER_SECOND, WEB_BURST)
        return pace


def _wait_for_turn(pace: Pace, deadline: float) -> None:
    now = time.monotonic()
    wait = pace.reserve(now)
    if now + wait > deadline:
        raise IdentityError("did-unavailable", "the host asked to be left alone for longer than a lookup may take")
    if wait:
        gevent.sleep(wait)


def _fact(did: str, target: Target, response: Response) -> Fact:
    """What a final answer says. Raises IdentityError."""
    if response.status == 200:
        try:
            document = diddoc.parse(response.body, did)
        except DidDocumentError as error:
            raise IdentityError("did-document", str(error)) from None
        return Identity(did, document.pds, document.key, document.handle)
    if response.status == 410 and target.is_plc:
        return Tombstone(did)
    if response.status in (404, 410):
        raise IdentityError("did-not-found", f"HTTP {response.status}")
    # A redirect too: whoever may speak for a did:web answers under its own name.
    raise IdentityError("did-document", f"HTTP {response.status}")


def retry_after(response: Response) -> float:
    """The seconds that the other side asks to be left alone for, within reason."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_RETRY_AFTER) if text.isdecimal() else DEFAULT_RETRY_AFTER
