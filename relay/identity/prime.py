"""Fills the identity table from the PLC directory's export, so that a new relay does not have to ask for each DID.

Run by `relay prime-identities`, also beside a running relay. Pages `/export`, the stream of all operations; where it
stands is stored with each page, so that it goes on after a stop, and a later run only reads what is new. Once it has
caught up, all did:plc rows count as resolved at that time. Must not know of terminals.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

import gevent

from relay.atproto import diddoc
from relay.atproto.errors import DidDocumentError
from relay.identity.directory import hold_seconds
from relay.identity.identity import PRIMED_UNTIL, Fact, Identity, Tombstone, to_row
from relay.kit.errors import AddressRefused, HttpError
from relay.kit.limits import Pace
from relay.net.http import GuardedHttp
from relay.store import identities, installation
from relay.store.database import Database, Transaction

POSITION = "identity_prime_after"
PAGE_LINES = 1000
# An operation is at most 7,500 bytes.
PAGE_BYTES = 16 << 20
PAGE_SECONDS = 60.0
PAGES_PER_SECOND = 1.5
TRIES = 8
FIRST_PAUSE_SECONDS = 1.0

# The export never ends while people use the network: this near to now is its end.
CAUGHT_UP_SECONDS = 60.0

# When the directory's first operation was, where a bar that shows progress in time begins.
FIRST_OPERATION = datetime(2022, 11, 17, tzinfo=UTC).timestamp()

log = logging.getLogger(__name__)


class Operation(NamedTuple):
    """One line of the export: when (the directory's text, and seconds since the epoch), and what the DID became then.

    None for `fact`: a later operation undid this one, or it is of a kind that says nothing.
    """

    created_at: str
    created: float
    fact: Fact | None


def prime(
    db: Database,
    http: GuardedHttp,
    plc_host: str,
    progress: Callable[[float, int], None] = lambda reached, operations: None,
) -> int:
    """Read the export from where the last run stopped up to now; the number of lines read.

    `progress(reached, lines)` is called after each page with the time it reached, in seconds since the epoch. Raises
    HttpError when the directory gives no answer for minutes, StoreError when the database does not: called again, it
    goes on from the last page.
    """
    directory = http.for_operator()
    pace = Pace(PAGES_PER_SECOND, 1)
    after = db.read(installation.get, POSITION) or ""
    total = 0
    while True:
        asked_at = time.time()
        page = [_operation(line) for line in _lines(directory, pace, plc_host, after)]
        reached = page[-1].created if page else asked_at
        caught_up = reached > asked_at - CAUGHT_UP_SECONDS
        after = _position_after(page, after)
        db.write(_store, page, after, asked_at if caught_up else None)
        total += len(page)
        progress(reached, total)
        if caught_up:
            return total


def _lines(http: GuardedHttp, pace: Pace, plc_host: str, after: str) -> list[bytes]:
    """The lines of the page after `after`; insists for minutes, since a run takes hours. Raises HttpError."""
    url = f"{plc_host}/export?count={PAGE_LINES}" + (f"&after={quote(after)}" if after else "")
    for attempt in range(TRIES):
        gevent.sleep(pace.reserve(time.monotonic()))
        try:
            response = http.get(url, timeout=PAGE_SECONDS, max_bytes=PAGE_BYTES)
        except (HttpError, AddressRefused) as error:
            failure = str(error)
        else:
            if response.status == 200:
                return response.body.splitlines()
            failure = f"HTTP {response.status}"
            if response.status == 429:
                pace.hold(time.monotonic(), hold_seconds(response))
        log.warning("%s failed and is asked again: %s", url, failure)
        gevent.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
    raise HttpError("http-broken", f"{url} failed {TRIES} times: {failure}")


def _operation(line: bytes) -> Operation:
    """Raises HttpError when the line is not one of the export: then nothing after it can be trusted either."""
    try:
        entry = json.loads(line)
        did, operation, created_at = entry["did"], entry["operation"], entry["createdAt"]
        created = datetime.fromisoformat(created_at).timestamp()
        fact = None if entry["nullified"] else _fact(did, operation)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HttpError("http-broken", f"a line of the export cannot be read: {error!r}") from None
    return Operation(created_at, created, fact)


def _fact(did: str, operation: dict[str, Any]) -> Fact | None:
    kind = operation["type"]
    if kind == "plc_tombstone":
        return Tombstone(did)
    if kind not in ("plc_operation", "create"):
        return None
    # Read as the document that the directory makes of it, so that one set of rules holds.
    body = json.dumps(_document(did, operation)).encode()
    try:
        document = diddoc.parse(body, did)
    except DidDocumentError:
        return None
    return Identity(did, document.pds, document.key, document.handle)


def _document(did: str, operation: dict[str, Any]) -> dict[str, Any]:
    if operation["type"] == "create":
        # The first form of an operation, with bare names.
        key, names = operation["signingKey"], [_with_scheme(operation["handle"], "at://")]
        service = {"type": "AtprotoPersonalDataServer", "endpoint": _with_scheme(operation["service"], "https://")}
    else:
        key, names = operation["verificationMethods"].get("atproto", ""), operation["alsoKnownAs"]
        service = operation["services"].get("atproto_pds", {})
    return {
        "id": did,
        "alsoKnownAs": names,
        "verificationMethod": [
            {
                "id": "#atproto",
                "type": "Multikey",
                "controller": did,
                "publicKeyMultibase": key.removeprefix("did:key:"),
            }
        ],
        "service": [
            {"id": "#atproto_pds", "type": service.get("type"), "serviceEndpoint": service.get("endpoint")},
        ],
    }


def _with_scheme(name: str, scheme: str) -> str:
    return name if "://" in name else scheme + name


def _position_after(page: Sequence[Operation], before: str) -> str:
    """Where the next page begins: at the last moment again, since a page may end between operations of one moment.

    Raises HttpError when the export does not move.
    """
    if not page:
        return before
    last = page[-1].created_at
    position = next((operation.created_at for operation in reversed(page) if operation.created_at != last), last)
    if position == before:
        raise HttpError("http-broken", f"the export does not get past {before}")
    return position


def _store(tx: Transaction, page: Sequence[Operation], after: str, primed_until: float | None) -> None:
    # A row is as old as its operation, so it never takes the place of what was resolved later.
    rows = {op.fact.did: to_row(op.fact, op.created) for op in page if op.fact}
    identities.upsert_many(tx, list(rows.values()), time.time())
    installation.put(tx, POSITION, after)
    if primed_until is not None:
        installation.put(tx, PRIMED_UNTIL, str(primed_until))
