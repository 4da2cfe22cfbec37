"""Asks the network who a DID is: the PLC directory for did:plc, the host itself for did:web.

Called by the resolver's workers, one call per DID and lookup. Retries what may pass, and turns every answer into a
fact or an IdentityError. Must not know of caches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import gevent

from relay.atproto import diddoc
from relay.atproto.errors import DidDocumentError
from relay.atproto.syntax import is_account_did
from relay.identity.directory import FACTS, Directory, hold_seconds, pause_before
from relay.identity.identity import Fact, Identity, Tombstone
from relay.kit import metrics
from relay.kit.background import yield_hub
from relay.kit.errors import AddressRefused, HttpError, IdentityError
from relay.kit.limits import Paces
from relay.net.http import GuardedHttp, Response

# A lookup ends within this time, retries included; pauses that the directory asks for come on top.
LOOKUP_SECONDS = 20.0
WEB_REQUEST_SECONDS = 8.0
MAX_DOCUMENT_BYTES = 64 << 10

# What is said of a DID that was not found where it should be, and may be in a moment.
NOT_THERE = "HTTP 404"

# A stranger's host is worth one more try.
WEB_TRIES = 2

WEB_PER_SECOND = 5.0
WEB_BURST = 20
WEB_HOSTS_REMEMBERED = 4096


class Target(NamedTuple):
    """Where the document of a DID is: in the directory, or at `url` of the host of a did:web."""

    is_plc: bool
    host: str
    url: str


def locate(did: str, *, allow_insecure: bool) -> Target:
    """Where to ask for `did`. Raises IdentityError `did-not-found` for a DID that no account can have.

    A did:web is asked over https; one of localhost over http, and only where insecure hosts are allowed.
    Specification: https://atproto.com/specs/did
    """
    if is_account_did(did):
        if did.startswith("did:plc:"):
            return Target(True, "", "")
        host = did.removeprefix("did:web:").replace("%3A", ":")
        # Of the names that an account can have, localhost alone has no dot.
        if "." in host:
            return Target(False, host, f"https://{host}/.well-known/did.json")
        if allow_insecure:
            return Target(False, host, f"http://{host}/.well-known/did.json")
    raise IdentityError("did-not-found", "neither a did:plc nor a did:web of a hostname")


class Lookup:
    """The two ways to ask. The directory's addresses are the operator's word, so they may be plain and private."""

    def __init__(self, http: GuardedHttp, plc_hosts: Sequence[str]) -> None:
        self._web = http
        self._directory = Directory(http.for_operator(), plc_hosts, MAX_DOCUMENT_BYTES)
        self._web_paces: Paces[str] = Paces(WEB_PER_SECOND, WEB_BURST, WEB_HOSTS_REMEMBERED)
        metrics.show_bound("web-paces", self._web_paces.__len__, WEB_HOSTS_REMEMBERED)

    @property
    def directory_silent(self) -> bool:
        """Whether the PLC directory has told nothing about any DID lately."""
        return self._directory.silent

    def fetch(self, did: str, target: Target) -> Fact:
        """What the network says about `did`.

        Raises IdentityError: `did-not-found` and `did-document` are facts about the DID, `did-unavailable` says that
        it cannot be told now.
        """
        return _fact(did, target, self._ask_directory(did) if target.is_plc else self._ask_web(target))

    def _ask_directory(self, did: str) -> Response:
        return self._directory.get(did, LOOKUP_SECONDS, lambda answer: _is_document_of(did, answer))

    def _ask_web(self, target: Target) -> Response:
        """As `Directory.get`, at the host of a did:web."""
        deadline = time.monotonic() + LOOKUP_SECONDS
        for attempt in range(WEB_TRIES):
            if attempt:
                gevent.sleep(pause_before(attempt))
            self._wait_for_turn(target, deadline)
            # A request takes the better part of a millisecond, and a hundred of them may be due at once.
            yield_hub()
            timeout = min(WEB_REQUEST_SECONDS, max(1.0, deadline - time.monotonic()))
            try:
                answer = self._web.get(target.url, timeout=timeout, max_bytes=MAX_DOCUMENT_BYTES + 1, beginning=True)
            except HttpError as error:
                failure = str(error)
                continue
            except AddressRefused as error:
                if error.reason == "address-refused":
                    raise IdentityError("did-not-found", str(error)) from None
                failure = str(error)
                continue
            if answer.status in FACTS:
                return answer
            # A redirect is not an answer either: whoever may speak for a did:web answers under its own name.
            failure = f"HTTP {answer.status}"
            if answer.status == 429 or "Retry-After" in answer.headers:
                self._web_paces.hold(target.host, time.monotonic(), hold_seconds(answer))
        raise IdentityError("did-unavailable", failure)

    def _wait_for_turn(self, target: Target, deadline: float) -> None:
        now = time.monotonic()
        wait = self._web_paces.reserve(target.host, now)
        if now + wait > deadline:
            raise IdentityError("did-unavailable", "the host asked for a longer pause than a lookup may take")
        if wait:
            gevent.sleep(wait)


def _is_document_of(did: str, answer: Response) -> bool:
    """Whether the body is a document that the directory may give for `did`, whatever is in it."""
    if len(answer.body) > MAX_DOCUMENT_BYTES:
        # Too long to be read: it is one if it begins like one.
        return answer.body.lstrip().startswith(b"{")
    document = answer.json_object()
    return document is not None and document.get("id") == did


def _fact(did: str, target: Target, answer: Response) -> Fact:
    """What an answer with one of the FACTS says. Raises IdentityError."""
    if answer.status == 200:
        try:
            document = diddoc.parse(answer.body, did)
        except DidDocumentError as error:
            raise IdentityError("did-document", str(error)) from None
        return Identity(did, document.pds, document.key, document.handle)
    if answer.status == 410 and target.is_plc:
        return Tombstone(did)
    raise IdentityError("did-not-found", f"HTTP {answer.status}")
