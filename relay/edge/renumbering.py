"""Gives an edge's records what a relay's have: the account's number in SQL, and what an #account event says of it.

Used by `promote`, segment by segment. An account that SQL does not have is stored before a record gets its number, so a
promotion that was broken off gives the same numbers again. Must not know of files.
"""

from __future__ import annotations

import logging

from relay.atproto import frames
from relay.atproto.errors import ProtocolError
from relay.atproto.events import STATUSES, Account, host_status, status_code
from relay.atproto.syntax import is_did
from relay.eventlog.record import FLAG_HIDES, Record, own_flags
from relay.store import accounts
from relay.store.accounts import AccountRow
from relay.store.database import Database, Transaction

# Accounts that are not looked up again in the next pieces.
KNOWN_ACCOUNTS = 200_000
TAKENDOWN = "takendown"

log = logging.getLogger(__name__)


class Renumbering:
    """Everything up to `position` SQL has already, the relay's own word on accounts among it.

    `hidden` is uid -> the seq below which its events are hidden, of the records after `position`; `taken_down` are the
    accounts that the last of their events calls so; `new_accounts` counts those that SQL did not have; `last_seq` is
    the newest record's.
    """

    def __init__(self, db: Database, position: int) -> None:
        """Raises StoreError."""
        self.hidden: dict[int, int] = {}
        self.taken_down: set[int] = set()
        self.new_accounts = 0
        self.last_seq = 0
        self._db = db
        self._position = position
        self._uids: dict[str, int] = {}

    def renumber(self, records: list[Record]) -> list[Record]:
        """`records` as a relay would have written them, but for the host. Raises StoreError."""
        dids = [_did_of(record) for record in records]
        self._look_up({did for did in dids if did})
        changed = [self._changed(record, did) for record, did in zip(records, dids, strict=True)]
        self.last_seq = records[-1].seq
        return changed

    def _changed(self, record: Record, did: str) -> Record:
        if not did:
            return record._replace(uid=0, status=0, flags=0)
        uid = self._uids[did]
        status, flags = 0, record.flags & FLAG_HIDES
        if record.kind == frames.Kind.ACCOUNT:
            status, own = _statuses(record)
            if record.seq > self._position:
                flags |= own_flags(STATUSES.index(own))
                if own == TAKENDOWN:
                    self.taken_down.add(uid)
                else:
                    self.taken_down.discard(uid)
        if flags & FLAG_HIDES and record.seq > self._position:
            self.hidden[uid] = record.seq
        return record._replace(uid=uid, status=status, flags=flags)

    def _look_up(self, dids: set[str]) -> None:
        missing = sorted(dids - self._uids.keys())
        if len(self._uids) + len(missing) > KNOWN_ACCOUNTS:
            self._uids = {}
            missing = sorted(dids)
        if missing:
            found, stored = self._db.write(_numbers_of, missing)
            self._uids |= found
            self.new_accounts += stored


def _numbers_of(tx: Transaction, dids: list[str]) -> tuple[dict[str, int], int]:
    """The uids of `dids`, and how many of these are new: they get numbers, and are on no host yet."""
    found = {did: account.uid for did, (account, _) in accounts.many_by_did(tx, dids).items()}
    first = accounts.max_uid(tx) + 1
    new = [did for did in dids if did not in found]
    rows = [AccountRow(uid, did, 0, "active", "active") for uid, did in enumerate(new, first)]
    accounts.insert_many(tx, rows)
    return found | {row.did: row.uid for row in rows}, len(rows)


def _did_of(record: Record) -> str:
    """The account of `record`; empty when it cannot be read, or is none: an edge takes what its upstream sends."""
    try:
        event = frames.peek(record.frame)
    except ProtocolError as error:
        log.error("event %d of the log cannot be read: %s", record.seq, error)
        return ""
    return event.did if isinstance(event, frames.Peeked) and is_did(event.did) else ""


def _statuses(record: Record) -> tuple[int, str]:
    """The code of what the host says of the account, and the status of the relay's own, as far as the event tells.

    Whose word a takedown is cannot be told from its event: it is taken for the relay's own, since those must not end
    by themselves. One that is not taken down here is active here, since the relay's own word goes before the host's.
    """
    try:
        event = frames.decode(record.frame)
    except ProtocolError as error:
        log.error("event %d of the log cannot be read: %s", record.seq, error)
        return 0, "active"
    if not isinstance(event, Account):
        return 0, "active"
    if not event.active and event.status == TAKENDOWN:
        return 0, TAKENDOWN
    return status_code(host_status(event.active, event.status)), "active"
