"""The start: brings SQL and the cursors up to the log, from what SQL says it has.

Called once by `opening`, before anything is written or served. The newest records may be missing in SQL after a crash;
all of them are when an older database was restored, and none when a newer one was. Blocks; must not serve or log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from relay.atproto import car, frames
from relay.atproto.cid import Cid
from relay.atproto.collections import touched
from relay.atproto.commit import parse_commit
from relay.atproto.errors import MstError, ProtocolError
from relay.atproto.events import STATUSES, effective_status, host_status
from relay.atproto.frames import Account, Commit, Event, Identity, Sync
from relay.atproto.mst_open import Opened, open_tree
from relay.eventlog.high_water import RESERVE
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.eventlog.record import FLAG_HIDES, FLAG_REVEALS, Record, own_code
from relay.store import accounts, hosts, installation, projection
from relay.store.accounts import AccountRow, RepoRow
from relay.store.database import Database, Transaction
from relay.store.projection import ProjectionBatch
from relay.stream.changes import Changed, changes_of
from relay.stream.cursors import NONE_YET, CursorBook
from relay.stream.suppressions import Suppressions

# Set once the counts of accounts are without deleted ones.
DELETED_PLACES_FREED = "deleted_places_freed"

log = logging.getLogger(__name__)


class Recovered(NamedTuple):
    """`position`: the seq up to which SQL now has everything; `replay_from`: the first seq that the cursors still need.
    `next_uid`: above every uid in SQL or in the log.
    """

    position: int
    replay_from: int
    next_uid: int


def recover(segment_log: SegmentLog, db: Database, book: CursorBook, suppressions: Suppressions) -> Recovered:
    """Apply the log's records after SQL's position, and fill `book` and `suppressions`.

    When SQL is ahead of the log, the log lost events that were published: its next seq is put past all that may have
    been. Raises StoreError, LogError.
    """
    db.write(_free_deleted_places)
    position, replay_from = db.read(projection.position)
    if position > segment_log.last_seq:
        log.warning("the database is ahead of the log: %d, %d", position, segment_log.last_seq)
        segment_log.advance(position + 1 + RESERVE)
    known = db.read(hosts.all_rows)
    cursors = LoggedSeqs({host.id: host.last_seq for host in known}, {host.id: host.cursor_since for host in known})
    next_uid = db.read(accounts.max_uid) + 1
    applied = 0
    told: set[int] = set()
    reader = LogReader(segment_log)
    seq = max(min(replay_from or 1, position + 1), segment_log.first_seq) - 1
    while records := reader.read(seq):
        seq = records[-1].seq
        cursors.note(records)
        next_uid = max(next_uid, *(record.uid + 1 for record in records))
        missing = [record for record in records if record.seq > position]
        if missing:
            db.write(apply, missing, replay_from, told)
            applied += len(missing)
    cursors.fill(book)
    suppressions.restore(db.read(projection.suppressions))
    log.info("applied %d events of the log to the database", applied)
    return Recovered(max(position, seq), replay_from or position + 1, next_uid)


def _free_deleted_places(tx: Transaction) -> None:
    if installation.get(tx, DELETED_PLACES_FREED) is None:
        accounts.free_deleted_places(tx)
        installation.put(tx, DELETED_PLACES_FREED, "yes")


class LoggedSeqs:
    """The upstream seqs in the log above each host's cursor in SQL (host id -> seq), of records after `since` (host id
    -> the log's seq): those before are of other numbers.

    Hosts that SQL does not know are left out: their ids may be given to others.
    """

    def __init__(self, stored: dict[int, int], since: dict[int, int]) -> None:
        self._stored = stored
        self._since = since
        self._logged: dict[int, dict[int, int]] = {}

    def note(self, records: Iterable[Record]) -> None:
        """Look at some of the log's records, in order."""
        for record in records:
            numbered_anew = record.seq <= self._since.get(record.host_id, 0)
            if not numbered_anew and record.upstream_seq > self._stored.get(record.host_id, record.upstream_seq):
                self._logged.setdefault(record.host_id, {}).setdefault(record.upstream_seq, record.seq)

    def fill(self, book: CursorBook) -> None:
        """Give every host its cursor. One that SQL has none for starts before its first event in the log."""
        for host_id, stored in self._stored.items():
            logged = self._logged.get(host_id, {})
            if stored <= NONE_YET and logged:
                stored = min(logged) - 1
                book.dirty.add(host_id)
            book.get(host_id).restore(stored, logged)


def apply(tx: Transaction, records: list[Record], replay_from: int, told: set[int]) -> None:
    """Write what `records` say of accounts, repos and suppressions, and that SQL has it.

    `told` are the accounts of whose own status a record said it, gathered from one call to the next.
    """
    batch = ProjectionBatch(position=records[-1].seq, replay_from=replay_from)
    events = [(record, event) for record in records if (event := _event_of(record)) is not None]
    known = accounts.many_by_did(tx, sorted({event.did for _, event in events}))
    for record, event in events:
        before, repo = known.get(event.did, (None, None))
        row = _account_of(record, event, before, inferred=record.uid not in told)
        if (code := own_code(record.flags)) is not None:
            told.add(record.uid)
            row = replace(row, status=STATUSES[code])
        if row != before:
            batch.accounts[row.uid] = row
        if before is not None and row.status != before.status:
            batch.own_statuses[row.uid] = row.status
        if isinstance(event, Commit | Sync) and (after := _changes_of(row.uid, event, repo)) is not None:
            batch.repos[row.uid] = repo = after.repo
            batch.collections |= {(row.uid, name): present for name, present in after.collections.items()}
        known[event.did] = row, repo
        if record.flags & FLAG_HIDES:
            batch.suppressed[row.uid] = record.seq
            batch.unsuppressed.discard(row.uid)
        elif record.flags & FLAG_REVEALS:
            batch.suppressed.pop(row.uid, None)
            batch.unsuppressed.add(row.uid)
    projection.write(tx, batch)


def _event_of(record: Record) -> Event | None:
    try:
        event = frames.decode(record.frame)
    except ProtocolError as error:
        log.error("event %d of the log cannot be read: %s", record.seq, error)
        return None
    return event if isinstance(event, Commit | Sync | Identity | Account) else None


def _account_of(record: Record, event: Event, known: AccountRow | None, *, inferred: bool) -> AccountRow:
    """The account after `event`. Identity events may come from any host, so they only ever make an account.

    `inferred`: the relay's own status is told by what the event says, as it has to be of the records of older relays.
    A takedown is, which an older database may lack; that one was undone is not, since it may be back.
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
        content = car.parse(event.blocks)
        data = parse_commit(content.blocks[content.root]).data
        told = {} if isinstance(event, Sync) else touched(event.ops, data, _opened(data, content.blocks))
    except ProtocolError as error:
        log.error("the commit of event %d in the log cannot be read: %s", event.seq, error)
        return None
    return changes_of(event, uid, content.root, data, told, before)


def _opened(root: Cid, blocks: Mapping[bytes, bytes]) -> Opened:
    """The nodes of a commit; none of a tree that was let through by leniency or by an older version."""
    try:
        return open_tree(root, blocks)
    except MstError:
        return {}
