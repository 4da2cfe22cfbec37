"""What the log's records say, as rows for SQL: what the projector would have written, made from the log alone.

Used to bring a database up to the log, piece by piece. Pure functions over records and what SQL has of their accounts.
Must not know where records or rows are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, MutableMapping
from dataclasses import replace

from relay.atproto import car, frames
from relay.atproto.cid import Cid
from relay.atproto.commit import parse_commit, touched
from relay.atproto.errors import MstError, ProtocolError
from relay.atproto.events import STATUSES, effective_status, host_status
from relay.atproto.frames import Account, Commit, Event, Identity, Sync
from relay.atproto.mst_read import Opened, open_tree
from relay.atproto.syntax import is_did
from relay.eventlog.record import FLAG_HIDES, FLAG_REVEALS, Record, own_code
from relay.store.accounts import AccountAndRepo, AccountRow, RepoRow
from relay.store.projection import ProjectionBatch, returns
from relay.stream.changes import Changed, changes_of

Known = MutableMapping[str, AccountAndRepo | None]

log = logging.getLogger(__name__)


def event_of(record: Record) -> Event | None:
    """The event in `record`; None when its frame cannot be read, or is of no account, as it may be in an edge's log."""
    try:
        event = frames.decode(record.frame)
    except ProtocolError as error:
        log.error("event %d of the log cannot be read: %s", record.seq, error)
        return None
    return event if isinstance(event, Commit | Sync | Identity | Account) and is_did(event.did) else None


def fold(batch: ProjectionBatch, events: Iterable[tuple[Record, Event]], known: Known, told: set[int]) -> None:
    """Put what `events` say of accounts, repos and suppressions into `batch`.

    `known` is what SQL has of their accounts (DID -> account and repo), and then has what they make of it. `told` are
    the accounts whose own status a record has stated, gathered from one call to the next.
    """
    for record, event in events:
        before, repo = known.get(event.did) or (None, None)
        row = _account_of(record, event, before, inferred=record.uid not in told)
        if (code := own_code(record.flags)) is not None:
            told.add(record.uid)
            row = replace(row, status=STATUSES[code])
        if row != before:
            batch.accounts[row.uid] = row
            if before is not None and returns(before.upstream_status, row.upstream_status):
                batch.returned.add(row.uid)
        if before is not None and row.status != before.status:
            batch.own_statuses[row.uid] = row.status
        if isinstance(event, Commit | Sync) and (after := _changes_of(row.uid, event, repo)) is not None:
            batch.repos[row.uid] = repo = after.repo
            for name, present in after.collections.items():
                batch.collections[row.uid, name] = present
        known[event.did] = row, repo
        if record.flags & FLAG_HIDES:
            batch.suppressed[row.uid] = record.seq
            batch.unsuppressed.discard(row.uid)
        elif record.flags & FLAG_REVEALS:
            batch.suppressed.pop(row.uid, None)
            batch.unsuppressed.add(row.uid)


def _account_of(record: Record, event: Event, known: AccountRow | None, *, inferred: bool) -> AccountRow:
    """The account after `event`. Identity events may come from any host, so they only ever make an account.

    `inferred`: the relay's own status is told by what the event says, as it has to be of the records of older relays.
    A takedown is told so, since an older database may lack it; its end is not, since the account may have been taken
    down again.
    """
    upstream = _host_status(record, event, known)
    if known is None:
        status = _own_status(event, upstream) if isinstance(event, Account) else "active"
        return AccountRow(record.uid, event.did, record.host_id, status, upstream)
    if isinstance(event, Identity):
        return known
    status = known.status
    if inferred and isinstance(event, Account) and _own_status(event, upstream) == "takendown":
        status = "takendown"
    return AccountRow(known.uid, known.did, record.host_id or known.host_id, status, upstream)


def _host_status(record: Record, event: Event, known: AccountRow | None) -> str:
    """What the host says of the account. A word that no code stands for is in the event, or was in one before it."""
    status = STATUSES[record.status]
    if status != "inactive":
        return status
    if isinstance(event, Account) and not event.active and event.status not in STATUSES:
        return host_status(event.active, event.status)
    return known.upstream_status if known is not None and known.upstream_status not in STATUSES else status


def _own_status(event: Account, upstream: str) -> str:
    """The relay's own status behind an #account event that it sent out."""
    if event.active or event.status is None or (event.active, event.status) == effective_status("active", upstream):
        return "active"
    if event.status == "throttled":
        return "host-throttled"
    return event.status if event.status in STATUSES else "inactive"


def _changes_of(uid: int, event: Commit | Sync, before: RepoRow | None) -> Changed | None:
    try:
        # What is in the log was verified once: only what is asked for is looked at again.
        root, block = car.root_block(event.blocks)
        data = parse_commit(block).data
        told = {} if isinstance(event, Sync) else touched(event.ops, data, _opened(event, data))
    except ProtocolError as error:
        log.error("the commit of event %d in the log cannot be read: %s", event.seq, error)
        return None
    return changes_of(event, uid, root, data, told, before)


def _opened(event: Commit, root: Cid) -> Opened:
    """The nodes of a commit that deletes, since they alone tell what is left; none of a tree that was let through by
    leniency or by an older version.
    """
    if all(op.cid is not None for op in event.ops):
        return {}
    try:
        return open_tree(root, car.parse(event.blocks).blocks)
    except MstError:
        return {}
