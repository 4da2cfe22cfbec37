"""Asks an account's host for its newest commit, believes none of the answers, and makes an event of what came.

Used by `accounts`, and `ask` by `listing`. Every answer is bounded in bytes and time; of a repository no more than the
beginning is read. The events go through the decoder like any other, so that the gate meets nothing that a host could
not send. Keeps nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from relay.atproto import car, frames
from relay.atproto.cid import Cid
from relay.atproto.commit import parse_commit
from relay.atproto.errors import FrameError, ProtocolError
from relay.atproto.frames import Account, Sync
from relay.atproto.syntax import is_tid
from relay.hosts.host import Host
from relay.ingest.hosting import time_now
from relay.kit.errors import HealError, RelayError
from relay.net.http import GuardedHttp, Response, xrpc_url

TIMEOUT_SECONDS = 10.0
MAX_BYTES = 16 << 10
# A commit object is some 250 bytes, and comes first wherever it comes with others.
BEGINNING_BYTES = 64 << 10
RETRY_AFTER_SECONDS = 3600.0
# What a host says that knows the method: the lexicon's names, and those of the reference relay.
NO_REPO = frozenset(
    {"RepoNotFound", "RepoTakendown", "RepoSuspended", "RepoDeactivated", "RepoDeleted", "RepoInactive"}
)
# Of a record that need not be there: the proof that it is not has the commit as well.
ANY_RECORD = {"collection": "app.bsky.actor.profile", "rkey": "self"}
# Not the host's: the lanes take none from what was fetched.
SEQ = 1


class Head(NamedTuple):
    """An account's newest commit as its host names it."""

    cid: Cid
    rev: str


def ask(
    http: GuardedHttp,
    host: Host,
    method: str,
    query: Mapping[str, str],
    max_bytes: int,
    seconds: float,
    *,
    beginning: bool = True,
) -> Response:
    """What the host answers to `com.atproto.sync.` `method`. Raises HealError when that is not an answer.

    Of a longer one its `beginning`, or nothing, is read.
    """
    url = xrpc_url(host.endpoint.url, f"com.atproto.sync.{method}", query)
    try:
        answer = http.get(url, timeout=seconds, max_bytes=max_bytes, beginning=beginning)
    except (RelayError, OSError) as error:
        raise HealError("heal-unanswered", f"{method}: {error}") from None
    if answer.status == 429 or (answer.status >= 500 and answer.status != 501):
        pause = answer.retry_after(RETRY_AFTER_SECONDS)
        raise HealError("heal-unanswered", f"{method}: HTTP {answer.status}", pause)
    return answer


def head(http: GuardedHttp, host: Host, did: str) -> Head | None:
    """The newest commit of `did`, None when the host says that it serves none. Raises HealError."""
    answer = ask(http, host, "getLatestCommit", {"did": did}, MAX_BYTES, TIMEOUT_SECONDS)
    said = answer.json_object()
    if _has_none(answer.status, said):
        return None
    if answer.status != 200:
        # That says nothing about the account: the host may lack this method alone.
        return _head_of_repo(http, host, did, answer.status)
    cid, rev = (said.get("cid"), said.get("rev")) if said is not None else (None, None)
    try:
        if isinstance(cid, str) and isinstance(rev, str) and is_tid(rev):
            return Head(Cid.parse(cid), rev)
    except ProtocolError:
        pass
    raise HealError("heal-answer", "getLatestCommit names no commit")


def _head_of_repo(http: GuardedHttp, host: Host, did: str, status: int) -> Head | None:
    """The commit at the root of the repository, for a host that answered getLatestCommit with `status`."""
    answer = ask(http, host, "getRepo", {"did": did}, BEGINNING_BYTES, TIMEOUT_SECONDS)
    if _has_none(answer.status, answer.json_object() if answer.status != 200 else None):
        return None
    if answer.status == 200:
        with suppress(ProtocolError):
            cid, block = car.root_block(answer.body)
            return Head(cid, parse_commit(block).rev)
    raise HealError("heal-answer", f"getLatestCommit: HTTP {status}, getRepo: HTTP {answer.status}")


def _has_none(status: int, said: Mapping[str, object] | None) -> bool:
    """Whether a host says that it serves nothing of the account. Without such a name no status means that."""
    # The name decides: some hosts give it with 400 or 404, others with 403 or 410.
    name = said.get("error") if said is not None else None
    return 400 <= status < 500 and isinstance(name, str) and name in NO_REPO


def commit_block(http: GuardedHttp, host: Host, did: str, newest: Head) -> tuple[Cid, bytes]:
    """The block of the commit `newest`, or of one that has come after it, with its id. Raises HealError.

    What is in it is not looked at, but for its hash.
    """
    blocks = ask(http, host, "getBlocks", {"did": did, "cids": str(newest.cid)}, BEGINNING_BYTES, TIMEOUT_SECONDS)
    if blocks.status == 200 and (block := car.block_of(newest.cid, blocks.body)) is not None:
        return newest.cid, block
    # Hosts without getBlocks, and repositories that have moved on, have a commit at the root of what they do give.
    for method, query in (("getRecord", {"did": did, **ANY_RECORD}), ("getRepo", {"did": did})):
        answer = ask(http, host, method, query, BEGINNING_BYTES, TIMEOUT_SECONDS)
        if answer.status == 200:
            try:
                return car.root_block(answer.body)
            except ProtocolError:
                continue
    raise HealError("heal-answer", f"no block of {newest.cid}")


def sync_event(did: str, rev: str, cid: Cid, block: bytes) -> Sync:
    """A `#sync` of the commit object `block`. Raises FrameError when it is too large for one."""
    if len(block) > frames.MAX_SYNC_BLOCKS:
        raise FrameError("frame-blocks-size", f"{len(block)} bytes")
    head, tail = frames.sync_frame(did, rev, time_now(), car.of_root(cid, block))
    event = frames.decode(head + frames.uint(SEQ) + tail)
    assert isinstance(event, Sync)
    return event


def account_event(did: str, status: str) -> Account:
    """An `#account` of what the host said, `status` in the words of `events.host_status`."""
    active = status == "active"
    word = None if active or status == "inactive" else status
    head, tail = frames.account_frame(did, time_now(), active, word)
    event = frames.decode(head + frames.uint(SEQ) + tail)
    assert isinstance(event, Account)
    return event
