"""Turns the log of an edge, with a database, into those of a relay that takes the place of the lost one.

Run by `relay edge promote` while nobody else has the log or the database open. Each step may be repeated: a promotion
that was broken off is run again, and until its end neither a relay nor an edge starts on the log. What SQL lacks of the
log is left to the relay's start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from relay.atproto.hostname import parse_endpoint
from relay.edge import upstream_hosts
from relay.edge.renumbering import Renumbering
from relay.edge.upstream_hosts import UpstreamHost
from relay.eventlog import identity
from relay.eventlog.high_water import RESERVE
from relay.eventlog.log import SegmentLog
from relay.eventlog.rewrite import rewrite
from relay.kit.errors import LogError
from relay.store import hosts, installation, projection
from relay.store.database import Database, Transaction
from relay.store.projection import ProjectionBatch
from relay.stream import checkpoint
from relay.stream.checkpoint import Checkpoint
from relay.stream.ownership import is_of_edge

# Hosts of one transaction.
HOSTS_AT_A_TIME = 500

# The account limit of a new host with this many accounts, and whether it is trusted.
FirstLimit = Callable[[str, int], tuple[int, bool]]
# Told of each segment that is done: how many are, and of how many.
Progress = Callable[[int, int], None]

log = logging.getLogger(__name__)


class Promoted(NamedTuple):
    """What came of it: events in the log, accounts that the database did not have, accounts that events say are taken
    down, hosts with a cursor, the last event's seq and the next one's. `ahead`: seqs that the database has and the log
    lacks.
    """

    events: int
    new_accounts: int
    taken_down: int
    hosts: int
    last_seq: int
    next_seq: int
    ahead: int


def promote(
    segment_log: SegmentLog, db: Database, first_limit: FirstLimit, progress: Progress, *, beyond: int = 0
) -> Promoted:
    """Make `segment_log`, opened as a relay's, and `db` those of one relay; the caller closes both.

    `db` is the lost relay's, a backup of it, a new one or the edge's own. New events get seqs well above `beyond` and
    above all that the log and the database have. Raises StoreError, and LogError: `log-relay` when an edge did not
    write the log, `log-io`.
    """
    if not is_of_edge(segment_log):
        raise LogError("log-relay", f"there is nothing to promote: no edge wrote the log in {segment_log.directory}")
    directory = segment_log.directory
    position = db.write(_begin, segment_log.first_seq - 1)
    try:
        # From here on no edge starts on the log.
        ours = identity.load(directory) or identity.make(directory)
        db.write(projection.set_owner, ours[0])
        # What the lost relay gave out is not known: consumers may be ahead of this log.
        segment_log.advance(max(segment_log.next_seq, beyond + 1, position + 1) + RESERVE)
        known = _take_hosts(db, segment_log, first_limit)
        renumbering = Renumbering(db, position)
        events = 0
        segments = segment_log.segments
        # The newest last: as long as it has an edge's numbers, no relay starts on the log.
        for done, segment in enumerate(segments, 1):
            events += rewrite(segment, renumbering.renumber)
            progress(done, len(segments))
        newest = renumbering.last_seq
        if position < newest:
            # With it the relay serves while SQL is brought up to the log.
            hidden = db.read(projection.suppressions) | renumbering.hidden
            checkpoint.store(directory, Checkpoint(newest, newest + 1, {}, hidden))
    except OSError as error:
        raise LogError("log-io", f"{directory}: {error}") from error
    return Promoted(
        events,
        renumbering.new_accounts,
        len(renumbering.taken_down),
        known,
        newest,
        segment_log.next_seq,
        max(position - newest, 0),
    )


def _begin(tx: Transaction, before_log: int) -> int:
    """Make the database a relay's; the seq up to which it has everything. One that has nothing begins with the log."""
    was_relay = installation.promote(tx)
    position, _ = projection.position(tx)
    if was_relay and position:
        return position
    projection.begin_at(tx, before_log)
    return before_log


def _take_hosts(db: Database, segment_log: SegmentLog, first_limit: FirstLimit) -> int:
    """Have the hosts that the upstream had in SQL, each with the seq up to which the log has its events."""
    listed = upstream_hosts.load(segment_log.directory)
    if listed is None:
        return 0
    for start in range(0, len(listed.hosts), HOSTS_AT_A_TIME):
        db.write(_store_hosts, listed.hosts[start : start + HOSTS_AT_A_TIME], listed.at, first_limit)
    return len(listed.hosts)


def _store_hosts(tx: Transaction, listed: list[UpstreamHost], at: float, first_limit: FirstLimit) -> None:
    seen = []
    cursors = {}
    for host in listed:
        endpoint = parse_endpoint(host.hostname)
        row = hosts.by_hostname(tx, endpoint.hostname)
        if row is None:
            limit, trusted = first_limit(endpoint.hostname, host.accounts)
            row = hosts.insert(tx, endpoint.hostname, no_ssl=not endpoint.tls, account_limit=limit, trusted=trusted)
            hosts.set_status(tx, row.id, host.status)
        row.last_connected_at = at
        seen.append(row)
        cursors[row.id] = host.seq
    hosts.save_states(tx, seen)
    position, replay_from = projection.position(tx)
    projection.write(tx, ProjectionBatch(position, replay_from, cursors=cursors))
