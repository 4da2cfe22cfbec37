"""The start: brings SQL and the cursors up to the log, from what SQL says it has.

Called once by `opening`, before anything is written or served. The newest records may be missing in SQL after a crash;
all of them are when an older database was restored, and none when a newer one was. Blocks; must not serve or log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple

from relay.eventlog.high_water import RESERVE
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.eventlog.record import Record
from relay.store import accounts, hosts, installation, projection
from relay.store.database import Database, Transaction
from relay.stream.catch_up import CatchUp
from relay.stream.cursors import NONE_YET, CursorBook
from relay.stream.suppressions import Suppressions

# Set once the counts of accounts are without deleted ones.
DELETED_PLACES_FREED = "deleted_places_freed"

log = logging.getLogger(__name__)


class Recovered(NamedTuple):
    """`position`: the seq up to which SQL now has everything; `replay_from`: the first seq that the cursors still need.
    `next_uid`: above every uid in SQL or in the log. `lost`: how many events at most neither of them has.
    """

    position: int
    replay_from: int
    next_uid: int
    lost: int


def recover(
    segment_log: SegmentLog, db: Database, book: CursorBook, suppressions: Suppressions, log_id: str
) -> Recovered:
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
    max_uid = db.read(accounts.max_uid)
    reader = LogReader(segment_log)
    seq = max(min(replay_from or 1, position + 1), segment_log.first_seq) - 1
    while records := reader.read(seq):
        seq = records[-1].seq
        cursors.note(records)
        max_uid = max(max_uid, *(record.uid for record in records))
    catch_up = CatchUp(segment_log, db, position, segment_log.last_seq, replay_from, log_id)
    catch_up.run()
    cursors.fill(book)
    suppressions.restore(db.read(projection.suppressions))
    return Recovered(catch_up.position, replay_from or position + 1, max_uid + 1, catch_up.lost)


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
            # What the relay fetched by itself has no number of its host's.
            if (
                record.upstream_seq
                and not numbered_anew
                and record.upstream_seq > self._stored.get(record.host_id, record.upstream_seq)
            ):
                self._logged.setdefault(record.host_id, {}).setdefault(record.upstream_seq, record.seq)

    def fill(self, book: CursorBook) -> None:
        """Give every host its cursor. One that SQL has none for starts before its first event in the log."""
        for host_id, stored in self._stored.items():
            logged = self._logged.get(host_id, {})
            if stored <= NONE_YET and logged:
                stored = min(logged) - 1
                book.dirty.add(host_id)
            book.get(host_id).restore(stored, logged, self._since.get(host_id, 0))
