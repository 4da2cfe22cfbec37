"""The start: brings SQL and the cursors up to the log, from what SQL says it has.

Called once by `stream`, before anything is written or served. The newest records may be missing in SQL after a crash;
all of them are when an older database was restored, and none when a newer one was. Blocks; must not serve or log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

from relay.eventlog.high_water import RESERVE
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.eventlog.record import Record
from relay.kit.background import in_turns
from relay.store import accounts, hosts, installation, projection
from relay.store.database import Database, Transaction
from relay.store.projection import ProjectionBatch
from relay.stream import checkpoint
from relay.stream.catch_up import CatchUp
from relay.stream.checkpoint import Checkpoint
from relay.stream.cursors import MAX_AHEAD, NONE_YET, CursorBook
from relay.stream.suppressions import Suppressions

# A database that is further behind is brought up to the log while the relay serves: some seconds' work.
WAIT_FOR_EVENTS = 20_000

# Set once the counts of accounts are without deleted ones.
DELETED_PLACES_FREED = "deleted_places_freed"

log = logging.getLogger(__name__)


class Recovered(NamedTuple):
    """`position`: the seq up to which SQL now has everything; `replay_from`: the first seq that the cursors still need.
    `next_uid`: above every uid in SQL or in the log. `lost`: up to how many events neither of them has.
    `behind`: what still has to be done before SQL has everything, where that is too much to wait for.
    """

    position: int
    replay_from: int
    next_uid: int
    lost: int
    behind: CatchUp | None = None


def recover(
    segment_log: SegmentLog, db: Database, book: CursorBook, suppressions: Suppressions, log_ids: tuple[str, ...]
) -> Recovered:
    """Apply the log's records after SQL's position, and fill `book` and `suppressions`.

    When SQL is ahead of the log, the log lost events that were published: its next seq is put past all that may have
    been. Raises StoreError, LogError.
    """
    db.write(_free_deleted_places)
    position, replay_from = db.read(projection.position)
    if position > segment_log.last_seq:
        log.warning(
            "the database is at %d, ahead of the log at %d: a million seqs are passed over",
            position,
            segment_log.last_seq,
        )
        segment_log.advance(position + 1 + RESERVE)
    found = _borne_out(checkpoint.load(segment_log.directory), segment_log, position)
    if found is not None:
        # Of the same position both are right, but either may have cursors that moved without an event.
        replay_from = found.replay_from if position < found.position else min(replay_from, found.replay_from)
        db.write(_take_cursors, found, position, replay_from)
    known = db.read(hosts.all_rows)
    cursors = LoggedSeqs({host.id: host.last_seq for host in known}, {host.id: host.cursor_since for host in known})
    hidden = found.hidden if found is not None else db.read(projection.suppressions)
    suppressions.restore(hidden)
    max_uid = db.read(accounts.max_uid)
    hidden_at = found.position if found is not None else position
    end = hidden_at
    for record in _records_from(segment_log, min(replay_from or 1, hidden_at + 1)):
        cursors.note(record)
        max_uid, end = max(max_uid, record.uid), max(end, record.seq)
        if record.flags and record.seq > hidden_at:
            suppressions.apply(record)
    cursors.fill(book)
    catch_up = CatchUp(segment_log, db, position, end, replay_from, log_ids)
    if found is not None and catch_up.remaining > WAIT_FOR_EVENTS:
        log.warning(
            "the database is %d events behind the log: it catches up before hosts are connected", catch_up.remaining
        )
        return Recovered(position, replay_from, max_uid + 1, catch_up.lost, catch_up)
    catch_up.run()
    max_uid = max(max_uid, catch_up.max_uid)
    return Recovered(catch_up.position, replay_from or position + 1, max_uid + 1, catch_up.lost)


def _borne_out(found: Checkpoint | None, segment_log: SegmentLog, position: int) -> Checkpoint | None:
    """The checkpoint, if it is not older than SQL and the log still has the record that it stands at."""
    if found is None or not position <= found.position <= segment_log.last_seq:
        return None
    if found.position < segment_log.first_seq:
        return None
    records = LogReader(segment_log).read(found.position - 1, 1)
    return found if records and records[0].seq == found.position else None


def _take_cursors(tx: Transaction, found: Checkpoint, position: int, replay_from: int) -> None:
    """Give SQL, which is at `position`, the cursors of a newer checkpoint: then they are right for all that follows."""
    known = {host.id: (host.cursor_since, host.last_seq) for host in hosts.all_rows(tx)}
    cursors = {
        host_id: (seq, since)
        for host_id, (seq, since) in found.cursors.items()
        if host_id in known and (since, seq) > known[host_id]
    }
    if not cursors and position == found.position:
        return
    batch = ProjectionBatch(
        position,
        replay_from,
        cursors={host_id: seq for host_id, (seq, _) in cursors.items()},
        started={host_id: since for host_id, (_, since) in cursors.items() if since},
    )
    projection.write(tx, batch, {position})
    # Those that SQL does not know have records in the log: no other host may get their ids.
    hosts.reserve_ids(tx, max(found.cursors, default=0))


def _records_from(segment_log: SegmentLog, seq: int) -> Iterator[Record]:
    """The log's records from `seq` on, with a turn for everyone else now and then."""
    reader = LogReader(segment_log)
    after = max(seq, segment_log.first_seq) - 1
    while records := reader.read(after):
        after = records[-1].seq
        yield from in_turns(records)


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
        # Hosts whose cursor was moved by what the log has.
        self._settled: set[int] = set()

    def note(self, record: Record) -> None:
        """Look at the next of the log's records."""
        host_id = record.host_id
        # What the relay fetched by itself has no number of its host's.
        if (
            not record.upstream_seq
            or record.seq <= self._since.get(host_id, 0)
            or record.upstream_seq <= self._stored.get(host_id, record.upstream_seq)
        ):
            return
        logged = self._logged.setdefault(host_id, {})
        logged.setdefault(record.upstream_seq, record.seq)
        if len(logged) >= 2 * MAX_AHEAD and self._stored[host_id] > NONE_YET:
            self._settle(host_id, logged)

    def _settle(self, host_id: int, logged: dict[int, int]) -> None:
        """No more than MAX_AHEAD events wait for an earlier one: what is followed by that many was settled."""
        settled = sorted(logged)[:-MAX_AHEAD]
        self._stored[host_id] = settled[-1]
        self._settled.add(host_id)
        for seq in settled:
            del logged[seq]

    def fill(self, book: CursorBook) -> None:
        """Give every host its cursor. One that SQL has none for starts before its first event in the log."""
        for host_id, stored in self._stored.items():
            logged = self._logged.get(host_id, {})
            if stored <= NONE_YET and logged:
                stored = min(logged) - 1
                book.dirty.add(host_id)
            if host_id in self._settled:
                book.dirty.add(host_id)
            book.get(host_id).restore(stored, logged, self._since.get(host_id, 0))
