"""An account's state as bytes, as it is kept in memory between two of its events.

Used by `accounts` alone. Pure: a row in, bytes out, and back.
"""

from __future__ import annotations

import struct

from relay.atproto.cid import LENGTH, Cid
from relay.atproto.events import STATUSES
from relay.store.accounts import AccountRow, RepoRow

# uid, host id, both statuses, whether commits were missed
_HEAD = struct.Struct(">QQBBB")
_CODES = {status: code for code, status in enumerate(STATUSES)}


def pack(row: AccountRow, repo: RepoRow | None) -> bytes:
    """The account and its repo, without the DID. Empty when they cannot be packed: then SQL is asked each time.

    That is so for a status that is none of ours, which only another relay can have put into the database.
    """
    status, upstream = _CODES.get(row.status), _CODES.get(row.upstream_status)
    if status is None or upstream is None:
        return b""
    head = _HEAD.pack(row.uid, row.host_id, status, upstream, repo is not None and repo.desynchronized)
    return head if repo is None else b"".join((head, repo.commit, repo.data, repo.rev.encode()))


def unpack(did: str, record: bytes) -> tuple[AccountRow, RepoRow | None]:
    """What was packed for `did`."""
    uid, host_id, status, upstream, gap = _HEAD.unpack_from(record)
    row = AccountRow(uid, did, host_id, STATUSES[status], STATUSES[upstream])
    repo = record[_HEAD.size :]
    if not repo:
        return row, None
    commit, data, rev = Cid(repo[:LENGTH]), Cid(repo[LENGTH : 2 * LENGTH]), repo[2 * LENGTH :].decode()
    return row, RepoRow(uid, rev, commit, data, bool(gap))
