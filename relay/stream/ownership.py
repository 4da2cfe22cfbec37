"""One log for one database: each keeps the other's identity, so that neither is used beside a third.

Called when a stream is opened, and before that by a node of a cluster that takes over. A log that has events and a
database that follows from another one do not belong together: cursors and numbers of the one mean nothing to the other.
Must not know of rows.
"""

from __future__ import annotations

import logging

from relay.eventlog import identity
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.kit.errors import LogError, StoreError
from relay.store import projection
from relay.store.database import Database

# A relay counts its accounts from 1, an edge has hashes for them. No cursor carries a number above this.
MAX_UID = 1 << 53

log = logging.getLogger(__name__)


def claim(segment_log: SegmentLog, db: Database) -> tuple[str, ...]:
    """Make the database that of this log, unless it is another's and this log has events; the log's identity, and those
    of its forerunners, to which an older state of the database may belong.

    Raises StoreError: `store-log` when they do not belong together; LogError: `log-edge` when the log is an edge's.
    """
    directory = segment_log.directory
    if is_of_edge(segment_log):
        raise LogError("log-edge", f"the log in {directory} is an edge's: run `relay edge promote` first")
    try:
        ours = identity.load(directory)
        theirs = db.read(projection.owner)
        if theirs is not None and theirs not in ours:
            if segment_log.segments:
                raise StoreError(
                    "store-log",
                    f"the database belongs to another log than the one in {directory}: put the right one in its place,"
                    " or run `relay log adopt` if this log is to go on and the other will never be used again",
                )
            log.warning("the log in %s is new: the database's former log is refused from now on", directory)
            ours = identity.make(directory, (theirs, *ours))
        ours = ours or identity.make(directory)
    except OSError as error:
        raise LogError("log-io", str(error)) from error
    if theirs != ours[0]:
        db.write(projection.set_owner, ours[0])
    return ours


def take(segment_log: SegmentLog, db: Database) -> None:
    """Make the database that of this log, whosever it was: nobody who had it writes to it from now on.

    For a log that has everything of the one whose place it takes. Raises StoreError, LogError.
    """
    try:
        ours = identity.make(segment_log.directory, identity.load(segment_log.directory))
    except OSError as error:
        raise LogError("log-io", str(error)) from error
    db.write(projection.set_owner, ours[0])


def is_of_edge(segment_log: SegmentLog) -> bool:
    """Whether the newest segment is one that an edge wrote. Raises LogError."""
    segments = segment_log.segments
    if not segments:
        return False
    return any(record.uid > MAX_UID for record in LogReader(segment_log).read(segments[-1].first_seq - 1))
