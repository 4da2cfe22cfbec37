"""What must be so after any crash of a `crash_life.Life`, by the numbers of the promises.

check(folder, url, ledger, told)           # starts again, goes on, and looks at everything
look(folder, url, ledger, told)            # starts again, and looks at what is there
check_seqs(folder, url, ledger, told)      # where events were lost for good: looks at their seqs alone
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from relay.atproto import frames
from relay.eventlog.record import Record
from relay.store import accounts, hosts, projection
from relay.store.database import Database
from relay.store.open import open_database
from relay.stream.cursors import NONE_YET
from tests.support.crash_life import Life, Told, folded, in_order
from tests.support.ledger import Entry, Ledger


def check(folder: Path, url: str, ledger: Ledger, told: Told) -> None:
    """Start again from what a crash left, go on to the end, and hold everything against invariants 2, 3, 4, 11, 16."""
    before = dict(told.seen)
    life, newest, logged = _started(folder, url, ledger, told)
    while any(life.cursors[name].position < entries[-1].seq for name, entries in ledger.items()):
        life.feed(50)
    new = [seq for seq in told.seen if seq not in before and seq not in logged]
    assert all(seq > newest for seq in new), "3: a seq was given out twice"
    did = min(folded(in_order(told.seen)))
    life.takedown(did)
    life.flush()
    _check_accounts(life)
    _check_all_there(told, life)
    life.stop()


def look(folder: Path, url: str, ledger: Ledger, told: Told) -> None:
    """Start again from what a crash left, and hold what is there against the invariants."""
    life, _, _ = _started(folder, url, ledger, told)
    life.abandon()


def _started(folder: Path, url: str, ledger: Ledger, told: Told) -> tuple[Life, int, dict[int, Record]]:
    """A start that finds all it has to find; the newest seq before it, and what is in the log."""
    before = dict(told.seen)
    database = open_database(url, max_connections=1)
    position, _ = database.read(projection.position)
    cursors = {row.hostname: row.last_seq for row in database.read(hosts.all_rows)}
    database.close()
    life = Life(folder, url, ledger, told)
    life.catch_up()
    logged = {record.seq: record for record in life.logged()}
    newest = max([*before, *logged, 0])
    assert position <= newest, "11: SQL is ahead of the log"
    assert life.log.next_seq > newest, "3: a seq would be given out twice"
    missing = [seq for seq in before if seq not in logged and seq >= life.log.first_seq]
    assert not missing, f"4: seen, and not in the log: {missing}"
    assert all(logged[seq] == record for seq, record in before.items() if seq in logged), "4: not what was seen"
    told.seen |= logged
    _check_cursors(told, cursors, life)
    _check_accounts(life)
    return life, newest, logged


def check_seqs(folder: Path, url: str, ledger: Ledger, told: Told) -> None:
    """Start again where events were lost for good, and look only at seqs: none that was seen is given out again."""
    newest = max(told.seen, default=0)
    life = Life(folder, url, ledger, told)
    life.catch_up()
    told.seen.clear()
    life.feed(3)
    did = min(_did_of(entries[0]) for entries in ledger.values())
    if life.accounts.lookup(did) is not None:
        life.takedown(did)
    assert not told.seen or min(told.seen) > newest, f"3: {min(told.seen)} was given out twice"
    assert life.log.next_seq > newest, "3: a seq would be given out twice"
    life.abandon()


def _check_cursors(told: Told, cursors: dict[str, int], life: Life) -> None:
    """2: what a stored cursor is past is in the log, was seen before it was trimmed, or was refused."""
    for name, cursor in cursors.items():
        host_id = life.host_ids[name]
        logged = {record.upstream_seq for record in told.seen.values() if record.host_id == host_id}
        refused = {seq for host, seq in told.refused if host == name}
        passed = {entry.seq for entry in life.ledger[name] if entry.seq <= cursor != NONE_YET}
        assert passed <= logged | refused, f"2: {name} is past {sorted(passed - logged - refused)}"


def _check_all_there(told: Told, life: Life) -> None:
    """2: every event is there once, and those of an account in order."""
    counted = Counter((record.host_id, record.upstream_seq) for record in told.seen.values() if record.host_id)
    assert all(count == 1 for count in counted.values()), "2: repeated"
    for name, entries in life.ledger.items():
        there = {seq for host_id, seq in counted if host_id == life.host_ids[name]}
        refused = {seq for host, seq in told.refused if host == name}
        assert {entry.seq for entry in entries} <= there | refused, "2: lost"
    # What was refused comes again behind an older database, and may pass then if it has no rev.
    late = {(life.host_ids[name], seq) for name, seq in told.refused}
    last: dict[tuple[int, int], int] = {}
    for record in in_order(told.seen):
        if record.host_id and (record.host_id, record.upstream_seq) not in late:
            key = record.uid, record.host_id
            assert record.upstream_seq > last.get(key, 0), "4: an account's events are out of order"
            last[key] = record.upstream_seq


def _check_accounts(life: Life) -> None:
    """11 and 16: SQL, memory and what can be read are what the log says, and what admins were told."""
    told = life.told
    expected = folded(in_order(told.seen))
    life.flush()
    stored = life.db.read(accounts.many_by_did, sorted(expected))
    for did, account in expected.items():
        row, repo = stored[did]
        assert (row.uid, row.status, row.upstream_status) == (account.uid, account.own, account.upstream), "11"
        assert (repo.rev if repo else None) == account.rev, "11: another rev"
        if did not in told.asking:
            assert told.answered.get(did, "active") == account.own, f"16: {did} was told {told.answered.get(did)}"
        state = life.accounts.lookup(did)
        assert state is not None and state.row.status == account.own
    logged = life.logged()
    _check_readable(life, logged, {account.uid: account.hidden_below for account in expected.values()})
    _check_marks(life.db, life.log.first_seq, {account.uid: account.hidden_below for account in expected.values()})


def _check_readable(life: Life, logged: list[Record], hidden: dict[int, int]) -> None:
    account_kind = frames.Kind.ACCOUNT
    wanted = [record.seq for record in logged if record.kind == account_kind or record.seq >= hidden.get(record.uid, 0)]
    assert life.readable() == wanted, "16: not what may be read"


def _check_marks(db: Database, first_seq: int, hidden: dict[int, int]) -> None:
    marks = db.read(projection.suppressions)
    for uid, before_seq in hidden.items():
        if before_seq > first_seq:
            assert marks.get(uid) == before_seq, "11: a mark is not in SQL"
        elif not before_seq:
            assert uid not in marks, "11: a mark is in SQL that was lifted"


def _did_of(entry: Entry) -> str:
    """The account of an event."""
    event = frames.decode(entry.frame)
    assert isinstance(event, frames.Event)
    return event.did
