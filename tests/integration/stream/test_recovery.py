"""The room after restarts, on real files and both databases: SQL behind, ahead, older or empty beside the log."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from relay.atproto.frames import Account, decode
from relay.eventlog.high_water import RESERVE
from relay.kit import metrics
from relay.kit.errors import StoreError
from relay.store import accounts, hosts, projection
from relay.store.accounts import AccountRow
from relay.store.database import Transaction
from relay.store.open import open_database
from relay.stream import checkpoint
from relay.stream.checkpoint import Checkpoint
from tests.support import databases
from tests.support.present import present
from tests.support.repo import RepoBuilder, SigningKey, account_did
from tests.support.stream import Room, payloads, submit_commit
from tests.support.tables import by_uid

KEY = SigningKey.create("k256")


def test_what_sql_did_not_have_is_applied_again(tmp_path: Path, database_url: str) -> None:
    room = Room(tmp_path, database_url)
    room.start()
    room.stream.projector._loop.stop()
    repos = {uid: RepoBuilder(account_did(uid), KEY) for uid in (1, 2, 3)}
    rows = {}
    for number in range(30):
        rows[number % 3 + 1] = submit_commit(room, number % 3 + 1, repos[number % 3 + 1])
    room.submit(2, status="deactivated")
    room.submit(3, status="deleted", hides=True)
    room.wait_for(32)
    assert room.stream.projector.account(account_did(1)) == (
        AccountRow(1, account_did(1), room.host.id, "active", "active"),
        rows[1],
    )
    room.abandon()
    room = Room(tmp_path, database_url)
    assert room.db.read(projection.position)[0] == 32
    statuses = {1: "active", 2: "deactivated", 3: "deleted"}
    for uid, row in rows.items():
        expected = AccountRow(uid, account_did(uid), room.host.id, "active", statuses[uid])
        assert room.db.read(by_uid, uid) == (expected, row)
    assert present(room.db.read(hosts.by_id, room.host.id)).account_count == 2, "a deleted account counts no more"
    assert room.stream.next_uid == 4 and room.log.next_seq == 33
    assert room.cursor.position == 0
    assert not any(room.cursor.begin(seq) for seq in range(1, 33)), "all of them are in the log"
    assert room.cursor.position == 32 and room.cursor.begin(33)
    room.stop()


def test_duplicates_are_known_over_two_crashes(tmp_path: Path, database_url: str) -> None:
    """An outstanding event holds the cursor back; what was logged after it must not be taken again, ever."""
    room = Room(tmp_path, database_url)
    room.start()
    room.upstream_seq = 9
    room.submit(1)
    room.wait_for(1)
    assert room.cursor.begin(11)
    room.upstream_seq = 11
    for uid in range(2, 30):
        room.submit(uid)
    room.wait_for(29)
    room.wait_until(lambda: room.stream.projector.pending.stored_position == 29)
    room.abandon()
    for _ in range(2):
        room = Room(tmp_path, database_url)
        room.start()
        assert room.cursor.position == 10
        # The projector writes again, with another host's event in the log, before this host comes back.
        room.stream.projector.note_account(AccountRow(77, account_did(77), room.host.id, "active", "active"))
        room.stream.projector.flush()
        room.abandon()
    room = Room(tmp_path, database_url)
    assert [seq for seq in range(10, 50) if room.cursor.begin(seq)] == [11, *range(40, 50)]
    room.stop()


def test_an_older_database_beside_a_newer_log(tmp_path: Path, database_url: str) -> None:
    room = Room(tmp_path, database_url)
    room.start()
    repos = {uid: RepoBuilder(account_did(uid), KEY) for uid in (1, 2, 3)}
    rows = {uid: submit_commit(room, uid, repos[uid]) for uid in (1, 2)}
    room.wait_for(2)
    room.stop()
    databases.save(database_url)
    room = Room(tmp_path, database_url)
    room.start()
    rows[1] = submit_commit(room, 1, repos[1])
    rows[3] = submit_commit(room, 3, repos[3])
    room.submit(2, status="takendown", own=True, hides=True, own_status="takendown")
    room.wait_for(5)
    room.stop()
    databases.bring_back(database_url)
    room = Room(tmp_path, database_url)
    assert room.log.next_seq == 6 and room.stream.next_uid == 4
    for uid, row in rows.items():
        status = "takendown" if uid == 2 else "active"
        account = AccountRow(uid, account_did(uid), room.host.id, status, "active")
        assert room.db.read(by_uid, uid) == (account, row)
    assert room.read(0) == [1, 3, 4, 5], "the takedown is in force again"
    assert [room.cursor.begin(seq) for seq in (3, 4, 5)] == [False, False, True]
    room.stop()


def test_an_empty_database_beside_a_log(tmp_path: Path, database_url: str) -> None:
    room = Room(tmp_path, database_url)
    room.start()
    repo = RepoBuilder(account_did(1), KEY)
    rows = [submit_commit(room, 1, repo) for _ in range(20)]
    room.wait_for(20)
    room.stop()
    databases.wipe(database_url)
    room = Room(tmp_path, database_url)
    assert room.read(0) == list(range(1, 21)) and room.log.next_seq == 21
    assert room.db.read(accounts.many_by_did, [account_did(1)])[account_did(1)][1] == rows[-1]
    room.stop()


@pytest.mark.parametrize("wiped", [True, False])
def test_a_newer_database_beside_an_older_log(tmp_path: Path, database_url: str, wiped: bool) -> None:
    """Consumers have seen seqs that the log does not know: a gap is left, and their cursors are not from the future."""
    room = Room(tmp_path, database_url)
    room.start()
    room.submit(1)
    room.stop()
    shutil.copytree(tmp_path / "persist", tmp_path / "backup")
    room = Room(tmp_path, database_url)
    room.start()
    for _ in range(50):
        room.submit(1)
    room.wait_for(51)
    room.stop()
    shutil.rmtree(tmp_path / "persist")
    if not wiped:
        shutil.copytree(tmp_path / "backup", tmp_path / "persist")
    for _ in range(2):
        room = Room(tmp_path, database_url)
        assert room.log.next_seq == 52 + RESERVE
        feed = room.stream.firehose.attach(51)
        assert not feed.outdated or wiped
        room.start()
        room.stop()
    room = Room(tmp_path, database_url)
    room.start()
    feed = room.stream.firehose.attach(51)
    room.submit(1)
    room.wait_for(52 + RESERVE)
    event = decode(payloads(feed.next(1.0) or b"")[0])
    assert isinstance(event, Account) and event.seq == 52 + RESERVE
    assert room.read(0) == ([] if wiped else [1]) + [52 + RESERVE]
    room.stop()


def test_a_log_that_does_not_reach_back_to_the_database_is_told(
    tmp_path: Path, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What it has is applied; what it has not is counted and said."""
    room = Room(tmp_path, database_url, segment_bytes=2000)
    room.start()
    for uid in range(1, 6):
        room.submit(uid)
    room.wait_for(5)
    room.stop()
    databases.save(database_url)
    room = Room(tmp_path, database_url, segment_bytes=2000)
    room.start()
    for uid in range(6, 200):
        room.submit(uid)
        room.wait_for(uid)
    room.stop()
    for segment in sorted((tmp_path / "persist").glob("*.seg"))[:3]:
        segment.unlink()
    room = Room(tmp_path, database_url, segment_bytes=2000)
    first, before = room.log.first_seq, metrics.STORE_LOST_EVENTS._value.get()
    assert first > 6 and room.stream.warning is None, "the database has them"
    room.stop()
    databases.bring_back(database_url)
    room = Room(tmp_path, database_url, segment_bytes=2000)
    assert metrics.STORE_LOST_EVENTS._value.get() - before == first - 6
    assert f"up to {first - 6} events" in str(room.stream.warning)
    assert f"the log begins at {first}" in caplog.text
    uids = [uid for (uid,) in room.db.read(lambda tx: tx.rows("SELECT uid FROM account ORDER BY uid"))]
    assert uids == [*range(1, 6), *range(first, 200)]
    assert room.db.read(projection.position)[0] == 199
    room.stop()


def own_status(room: Room, uid: int) -> str | None:
    found = room.db.read(by_uid, uid)
    return found and found[0].status


def test_the_relays_own_word_is_read_from_the_record_and_not_from_what_the_event_says(
    tmp_path: Path, database_url: str
) -> None:
    """Also where the host says the same, or worse, or the words came after each other."""
    room = Room(tmp_path, database_url)
    room.start()
    for uid in range(1, 5):
        room.submit(uid)
    room.wait_for(4)
    room.submit(4, own=True, status="takendown", hides=True, own_status="takendown")
    room.wait_for(5)
    room.stop()
    databases.save(database_url)
    room = Room(tmp_path, database_url)
    room.start()
    room.submit(1, status="takendown", hides=True)
    room.submit(2, status="takendown", hides=True)
    room.submit(2, own=True, status="takendown", hides=True, own_status="takendown", host_status="takendown")
    room.submit(3, own=True, status="takendown", hides=True, own_status="takendown")
    room.submit(3, own=True, reveals=True, own_status="active")
    room.submit(4, own=True, reveals=True, own_status="active")
    room.wait_for(11)
    room.abandon()
    databases.bring_back(database_url)
    room = Room(tmp_path, database_url)
    assert [own_status(room, uid) for uid in range(1, 5)] == ["active", "takendown", "active", "active"]
    assert not {3, 4} & room.db.read(projection.suppressions).keys()
    assert {1, 2} <= room.db.read(projection.suppressions).keys()
    room.stop()


def test_a_takedown_by_an_older_relay_is_told_by_its_event(tmp_path: Path, database_url: str) -> None:
    room = Room(tmp_path, database_url)
    room.start()
    room.submit(1)
    room.wait_for(1)
    room.stop()
    databases.save(database_url)
    room = Room(tmp_path, database_url)
    room.start()
    room.submit(1, own=True, status="takendown", hides=True)
    room.wait_for(2)
    room.abandon()
    databases.bring_back(database_url)
    room = Room(tmp_path, database_url)
    assert own_status(room, 1) == "takendown"
    room.stop()


def test_a_checkpoint_is_read_as_it_was_written_or_not_at_all(tmp_path: Path) -> None:
    found = Checkpoint(70, 60, {3: (500, 12), 9: (-1, 40)}, {7: 65, 1 << 62: 9})
    checkpoint.store(tmp_path, found)
    assert checkpoint.load(tmp_path) == found
    path = tmp_path / checkpoint.NAME
    whole = path.read_bytes()
    for spoiled in (b"", whole[:-1], whole[:20], whole[:30] + b"x" + whole[31:]):
        path.write_bytes(spoiled)
        assert checkpoint.load(tmp_path) is None
    path.unlink()
    assert checkpoint.load(tmp_path) is None


def test_an_old_database_gets_cursors_and_marks_from_the_checkpoint(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is served at once, without what is hidden; SQL is asked nothing until it is up to it; a crash on the way
    costs nothing."""
    room = Room(tmp_path, database_url)
    room.start()
    for uid in range(1, 21):
        room.submit(uid)
    room.wait_for(20)
    room.stop()
    databases.save(database_url)
    room = Room(tmp_path, database_url)
    room.start()
    for uid in (*range(21, 300), *range(1, 300)):
        room.submit(uid)
    room.submit(5, status="takendown", own=True, hides=True, own_status="takendown")
    room.wait_for(599)
    repo = RepoBuilder(account_did(5), KEY)
    submit_commit(room, 5, repo)
    room.wait_for(600)
    room.stream._checkpoints.write()
    room.submit(6, status="deleted", hides=True)
    room.wait_for(601)
    position = room.cursor.position
    room.abandon()
    databases.bring_back(database_url)
    monkeypatch.setattr("relay.stream.recovery.WAIT_FOR_EVENTS", 100)
    monkeypatch.setattr("relay.stream.catch_up.PIECE_RECORDS", 50)
    monkeypatch.setattr("relay.stream.catch_up.READ_BYTES", 4000)
    room = Room(tmp_path, database_url)
    assert room.stream.projector.behind and "events to go" in str(room.stream.problem)
    assert room.cursor.position + sum(not room.cursor.begin(seq) for seq in range(room.cursor.position + 1, 601)) == 600
    assert room.read(0) == list(range(1, 602))
    assert {5, 6} <= room.stream.suppressions.marks().keys()
    with pytest.raises(StoreError, match="store-behind"):
        room.stream.projector.account(account_did(7))
    behind = room.stream.projector._catch_up
    assert behind is not None and behind.step() and behind.step()
    reached = room.db.read(projection.position)[0]
    assert 20 < reached < 601
    assert present(room.db.read(hosts.by_id, room.host.id)).last_seq in range(position - 2, position + 1), (
        "cursors came first"
    )
    room.abandon()
    room = Room(tmp_path, database_url)
    assert room.db.read(projection.position)[0] == reached, "it goes on from there"
    room.start()
    room.stream.projector.wait_until_caught_up()
    room.wait_until(lambda: room.stream.problem is None)
    assert room.stream.next_uid == 300
    assert own_status(room, 5) == "takendown"
    assert present(room.db.read(hosts.by_id, room.host.id)).account_count == 298
    room.upstream_seq = max(room.cursor.position, position)
    room.submit(7)
    room.wait_until(lambda: room.stream.projector.pending.stored_position == 602)
    assert present(room.db.read(hosts.by_id, room.host.id)).last_seq >= position
    room.stop()


def test_no_other_host_gets_the_id_of_one_that_has_events_in_the_log(tmp_path: Path, database_url: str) -> None:
    room = Room(tmp_path, database_url)
    room.start()
    room.submit(1)
    room.wait_for(1)
    room.stop()
    databases.save(database_url)
    room = Room(tmp_path, database_url)
    room.start()
    room.submit(2)
    room.wait_for(2)
    room.stop()
    # A host that came after the copy.
    kept = present(checkpoint.load(tmp_path / "persist"))
    checkpoint.store(tmp_path / "persist", kept._replace(cursors={**kept.cursors, 7: (5, 0)}))
    databases.bring_back(database_url)
    room = Room(tmp_path, database_url)
    other = room.db.write(hosts.insert, "other.test", no_ssl=False, account_limit=100, trusted=False)
    assert other.id == 8
    room.stop()


def test_a_takedown_that_came_between_writing_and_storing_is_in_force(tmp_path: Path, database_url: str) -> None:
    """SQL is stored at a moment at which the log has a record more: no cursor needs that one, but a mark does."""
    room = Room(tmp_path, database_url)
    room.start()
    room.submit(1)
    room.submit(1, status="takendown", own=True, hides=True, own_status="takendown")
    room.wait_for(2)
    room.stop()

    def as_then(tx: Transaction) -> None:
        tx.execute("UPDATE relay_position SET position = 1, replay_from = 3")
        tx.execute("DELETE FROM log_suppression")

    room.db = open_database(database_url, max_connections=1)
    room.db.write(as_then)
    room.db.close()
    (tmp_path / "persist" / checkpoint.NAME).unlink()
    room = Room(tmp_path, database_url)
    assert room.stream.suppressions.marks() == {1: 2} and room.read(0) == [1, 2]
    assert room.db.read(projection.position)[0] == 2
    room.stop()


def test_numbers_from_before_a_host_began_anew_do_not_come_back_with_an_old_database(
    tmp_path: Path, database_url: str
) -> None:
    room = Room(tmp_path, database_url)
    room.start()
    room.upstream_seq = 1_000
    room.submit(1)
    room.wait_for(1)
    room.stop()
    databases.save(database_url)
    room = Room(tmp_path, database_url)
    room.start()
    room.cursor.reset()
    room.cursor.start(0)
    assert room.stream.projector.wait_until_stored(10.0)
    room.upstream_seq = 0
    for uid in range(2, 6):
        room.submit(uid)
    room.wait_for(5)
    room.abandon()
    databases.bring_back(database_url)
    room = Room(tmp_path, database_url)
    assert [seq for seq in range(1, 8) if room.cursor.begin(seq)] == [5, 6, 7], "the log has the new 1 to 4"
    room.stop()
