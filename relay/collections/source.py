"""Asks another relay which repos have records of a collection, a page at a time, and believes none of its answers.

Used by `imports`. A page is bounded in bytes, entries and time; what is not a DID or a cursor is left out or refused.
Keeps nothing and stores nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from relay.atproto.syntax import is_did, is_nsid
from relay.kit.errors import AddressRefused, BackfillError, HttpError
from relay.net.http import GuardedHttp, Response, xrpc_url
from relay.net.pages import read_cursor

PAGE_SECONDS = 30.0
# A page of full size has some 100 KB. Reading more JSON than this at a time would hold up the hub.
PAGE_BYTES = 512 << 10
# What the lexicon allows.
PAGE_REPOS = 2_000
RETRY_AFTER_SECONDS = 300.0

# The list of collections is a side-car's (indigo's collectiondir), not the lexicon's.
NAMES_PER_PAGE = 1000
NAME_PAGES = 20


class Page(NamedTuple):
    """The DIDs of a page, how many entries it had (also those that are not DIDs), and where the next one starts."""

    dids: list[str]
    listed: int
    cursor: str | None


def page(http: GuardedHttp, source: str, nsid: str, cursor: str) -> Page:
    """One page of `listReposByCollection` of the relay at the address `source`. Raises BackfillError."""
    query = {"collection": nsid, "limit": str(PAGE_REPOS), "cursor": cursor}
    answer = _get(http, xrpc_url(source, "com.atproto.sync.listReposByCollection", query))
    if answer.status in (404, 405, 501):
        raise BackfillError("backfill-source", f"{source} does not offer listReposByCollection: HTTP {answer.status}")
    if answer.status != 200:
        raise BackfillError("backfill-refused", f"{nsid}: HTTP {answer.status}")
    body = _object(answer)
    repos, following = body.get("repos"), body.get("cursor")
    if not isinstance(repos, list):
        raise BackfillError("backfill-answer", f"{nsid}: the answer has no list of repos")
    dids = [repo.get("did") for repo in repos if isinstance(repo, dict)]
    return Page([did for did in dids if isinstance(did, str) and is_did(did)], len(repos), _cursor(following))


def collections(http: GuardedHttp, source: str) -> list[str]:
    """The names of the collections that the source has; none when it does not tell. Raises BackfillError."""
    found: dict[str, None] = {}
    cursor: str | None = ""
    for _ in range(NAME_PAGES):
        query = urlencode({"limit": NAMES_PER_PAGE, "cursor": cursor}, quote_via=quote)
        answer = _get(http, f"{source}/v1/listCollections?{query}")
        try:
            body = _object(answer) if answer.status == 200 else {}
            cursor = _cursor(body.get("cursor"))
        except BackfillError:
            break
        listed = body.get("collections")
        names = [name for name in listed if is_nsid(name)] if isinstance(listed, dict) else []
        known = len(found)
        found |= dict.fromkeys(names)
        if cursor is None or len(found) == known:
            break
    return list(found)


def _get(http: GuardedHttp, url: str) -> Response:
    try:
        answer = http.get(url, timeout=PAGE_SECONDS, max_bytes=PAGE_BYTES)
    except AddressRefused as error:
        reason = "backfill-source" if error.reason == "address-refused" else "backfill-unavailable"
        raise BackfillError(reason, str(error)) from None
    except HttpError as error:
        reason = "backfill-source" if error.reason == "http-url" else "backfill-unavailable"
        raise BackfillError(reason, str(error)) from None
    if answer.status == 429 or answer.status in (500, 502, 503, 504):
        pause = answer.retry_after(RETRY_AFTER_SECONDS)
        raise BackfillError("backfill-unavailable", f"HTTP {answer.status}", pause)
    return answer


def _object(answer: Response) -> dict[str, Any]:
    body = answer.json_object()
    if body is None:
        raise BackfillError("backfill-answer", "the answer is not a JSON object")
    return body


def _cursor(value: object) -> str | None:
    try:
        return read_cursor(value)
    except ValueError as error:
        raise BackfillError("backfill-answer", str(error)) from None
