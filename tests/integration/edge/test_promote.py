"""An edge's log and a database become a relay's: accounts with small numbers, the past hidden that has to be, seqs that
nobody else gave out; with a new database, the edge's own and a backup of the lost relay's.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.atproto import frames
from relay.atproto.frames import Peeked
from relay.config import Settings
from relay.edge import promote, upstream_hosts
from relay.edge.copier import Copier
from relay.edge.edge import Edge
from relay.edge.promote import Promoted
from relay.edge.upstream_hosts import Listed, UpstreamHost
from relay.eventlog.high_water import RESERVE
from relay.eventlog.inspect import verify
from relay.eventlog.log import SegmentLog
from relay.eventlog.rewrite import Change, rewrite
from relay.eventlog.segment import Segment
from relay.kit.errors import LogError, StoreError
from relay.store import accounts, hosts, installation
from relay.store.open import open_database
from relay.stream import ownership, recovery
from relay.stream.suppressions import Suppressions
from relay.stream.tail import Tail
from tests.support import databases
from tests.support.repo import RepoBuilder, SigningKey, account_did, create
from tests.support.repo import frame as framed
from tests.support.stream import Room, submit_commit

SEGMENT_BYTES = 4_000


class Network:
    """Accounts, and all events that their relay gave out."""

    def __init__(self, count: int) -> None:
        self.repos = [RepoBuilder(account_did(n), SigningKey.create(seed=n)) for n in range(1, count + 1)]
        self.frames: list[bytes] = []

    def commit(self, *numbers: int) -> None:
        for number in numbers:
            event = self.repos[number - 1].commit(create(f"app.bsky.feed.post/{len(self.frames):013d}", {"n": 1}))
            self.frames.append(event.frame(len(self.frames) + 1))

    def account(self, number: int, status: str | None) -> None:
        repo = self.repos[number - 1]
        self.frames.append(repo.account_frame(len(self.frames) + 1, active=status is None, status=status))

    def identity(self, number: int) -> None:
        self.frames.append(self.repos[number - 1].identity_frame(len(self.frames) + 1))


def copied(folder: Path, sent: list[bytes], after: int = 0) -> None:
    """An edge gets the frames `sent`, the first of which are older than its log."""
    segment_log = SegmentLog(folder / "persist", copy=True, segment_bytes=SEGMENT_BYTES)
    suppressions = Suppressions()
    copier = Copier(segment_log, Tail(0, suppressions), suppressions, lambda _: None, backfill=True)
    copier.start()
    for frame in sent[after:]:
        event = frames.peek(frame)
        assert isinstance(event, Peeked)
        copier.put(event, frame)
        # A batch each, so that there are many segments.
        while segment_log.last_seq < event.seq:
            copier._commits._idle.wait(0.1)
    copier.stop(30.0)
    segment_log.close()


def promoted(folder: Path, url: str, **rest: Any) -> Promoted:
    db = open_database(url, max_connections=2, hold=True)
    segment_log = SegmentLog(folder / "persist")
    try:
        return promote.promote(segment_log, db, lambda _, carried: (100 + carried, False), lambda *_: None, **rest)
    finally:
        segment_log.close()
        db.close()


@contextmanager
def relay(folder: Path, url: str) -> Iterator[Room]:
    """A relay on what was promoted."""
    room = Room(folder, url)
    room.start()
    try:
        room.wait_until(lambda: not room.stream.projector.behind)
        yield room
    finally:
        room.stop()


def listed(room: Room, page: int = 2) -> dict[str, str]:
    """DID -> rev, as `listRepos` gives it, page by page with cursors that it takes."""
    found: dict[str, str] = {}
    after: int | None = 0
    while after is not None:
        assert after < 1 << 53
        repos, after = room.db.read(accounts.list_repos, after, page)
        found |= {repo.did: repo.rev for repo in repos}
    return found


def read_of(room: Room, did: str) -> list[int]:
    """The seqs of the account's commits that a consumer gets."""
    return [event.seq for event in room.events() if event.did == did and isinstance(event, frames.Commit)]


@pytest.mark.parametrize("own", [False, True], ids=["new", "edge's"])
def test_a_database_without_accounts(tmp_path: Path, database_url: str, own: bool) -> None:
    network = Network(5)
    network.commit(*[1, 2, 3, 4] * 5)
    network.account(2, "takendown")
    network.account(3, "deactivated")
    network.identity(5)
    network.commit(1, 4)
    copied(tmp_path, network.frames, after=3)
    if own:
        db = open_database(database_url, max_connections=2)
        db.write(installation.claim, "edge")
        db.close()
    done = promoted(tmp_path, database_url)
    assert done == Promoted(22, 5, 1, 0, 25, done.next_seq, 0)
    assert done.next_seq >= 26 + RESERVE
    assert all(verdict.sound for verdict in verify(tmp_path / "persist"))
    with relay(tmp_path, database_url) as room:
        assert room.stream.next_uid == 6 and room.stream.warning is None
        assert listed(room) == {repo.did: repo.rev for repo in network.repos if repo.did in _dids(network, 1, 4)}
        status = {number: room.stream.projector.account(account_did(number)) for number in range(1, 6)}
        said = {number: (found[0].status, found[0].upstream_status) for number, found in status.items() if found}
        expected = {1: "active active", 2: "takendown active", 3: "active deactivated", 4: "active active"}
        assert {number: " ".join(both) for number, both in said.items()} == expected | {5: "active active"}
        assert [event.frame for event in room.events()] == [
            frame for seq, frame in enumerate(network.frames, 1) if seq > 3 and not _of(frame, 2, before=21, seq=seq)
        ]
        # A takedown after the promotion hides what the edge had logged.
        assert read_of(room, account_did(4))
        taken = room.stream.projector.account(account_did(4))
        assert taken is not None
        room.submit(taken[0].uid, own=True, status="takendown", hides=True, own_status="takendown")
        room.wait_for(done.next_seq)
        assert room.events()[-1].seq == room.stream.firehose.last_seq >= done.next_seq
        assert read_of(room, account_did(4)) == [] and read_of(room, account_did(1))
    with relay(tmp_path, database_url) as room:
        assert read_of(room, account_did(4)) == [] and read_of(room, account_did(1))


def test_what_is_of_no_account_spoils_nothing(tmp_path: Path, database_url: str) -> None:
    """An edge passes on whatever its upstream says; a database takes no text with a NUL in it."""
    network = Network(2)
    network.commit(1, 2)
    for did in ("did:plc:\0", "", "someone", "did:plc:" + "a" * 5_000):
        stated = {"did": did, "time": "2026-11-24T00:00:00.000Z"}
        network.frames.append(framed("#identity", {"seq": len(network.frames) + 1, **stated}))
        gone = {"active": False, "status": "takendown"}
        network.frames.append(framed("#account", {"seq": len(network.frames) + 1, **stated, **gone}))
    network.commit(1)
    copied(tmp_path, network.frames)
    done = promoted(tmp_path, database_url)
    assert (done.events, done.new_accounts, done.taken_down) == (11, 2, 0)
    with relay(tmp_path, database_url) as room:
        assert listed(room) == {repo.did: repo.rev for repo in network.repos}
        assert [event.frame for event in room.events()] == network.frames


def _dids(network: Network, *numbers: int) -> set[str]:
    return {network.repos[number - 1].did for number in numbers}


def _of(frame: bytes, number: int, *, before: int, seq: int) -> bool:
    event = frames.peek(frame)
    return isinstance(event, Peeked) and event.did == account_did(number) and seq < before


def test_a_backup_of_the_lost_relay(tmp_path: Path, database_url: str) -> None:
    """With its accounts' numbers, its takedowns and its hosts; what the edge has since then is applied."""
    room = Room(tmp_path / "relay", database_url)
    room.start()
    # Not in the order of their DIDs.
    repos = {uid: RepoBuilder(account_did(uid), SigningKey.create(seed=uid)) for uid in (1, 2, 3)}
    for uid, repo in repos.items():
        for _ in range(3):
            submit_commit(room, uid, repo)
    room.wait_for(9)
    sent = [event.frame for event in room.events()]
    room.submit(3, own=True, status="takendown", own_status="takendown", hides=True)
    room.wait_for(10)
    sent.append(room.events(9)[0].frame)
    room.stop()
    databases.save(database_url)
    late = Network(0)
    late.repos = [*repos.values(), RepoBuilder(account_did(7), SigningKey.create(seed=7))]
    late.frames = [*sent]
    late.commit(1, 2, 4)
    late.account(1, "takendown")
    copied(tmp_path / "edge", late.frames)
    upstream_hosts.store(
        tmp_path / "edge" / "persist",
        Listed(1_800_000_000.0, [UpstreamHost("pds.test", 77, 3, "active"), UpstreamHost("new.test", 5, 40, "idle")]),
    )
    databases.bring_back(database_url)
    done = promoted(tmp_path / "edge", database_url)
    assert (done.events, done.new_accounts, done.taken_down, done.hosts, done.ahead) == (14, 1, 1, 2, 0)
    with relay(tmp_path / "edge", database_url) as room:
        rows = {row.hostname: row for row in room.db.read(hosts.all_rows)}
        assert (rows["pds.test"].last_seq, rows["pds.test"].account_limit) == (77, 100)
        assert (rows["new.test"].last_seq, rows["new.test"].account_limit, rows["new.test"].status) == (5, 140, "idle")
        assert rows["new.test"].last_connected_at == 1_800_000_000.0
        for uid, repo in repos.items():
            found = room.stream.projector.account(repo.did)
            assert found is not None and found[1] is not None
            assert (found[0].uid, found[1].rev) == (uid, repo.rev)
            assert found[0].status == ("takendown" if uid in (1, 3) else "active")
        assert room.stream.projector.account(account_did(7)) is not None
        assert room.stream.next_uid == 5
        # Taken down since the backup, not at all, and before it.
        assert [len(read_of(room, repo.did)) for repo in repos.values()] == [0, 4, 0]
        # Another takedown, now that it is a relay.
        room.submit(2, own=True, status="takendown", hides=True, own_status="takendown")
        room.wait_for(done.next_seq)
        assert read_of(room, repos[2].did) == [] and read_of(room, account_did(7))


def test_a_database_that_is_ahead_of_the_edge(tmp_path: Path, database_url: str) -> None:
    """The relay's database outlived it on another machine; no seq of what only it has is given out again."""
    room = Room(tmp_path / "relay", database_url)
    room.start()
    repo = RepoBuilder(account_did(1), SigningKey.create(seed=1))
    for _ in range(9):
        submit_commit(room, 1, repo)
    room.wait_for(9)
    sent = [event.frame for event in room.events()]
    room.stop()
    copied(tmp_path / "edge", sent[:4])
    done = promoted(tmp_path / "edge", database_url)
    assert (done.last_seq, done.ahead) == (4, 5) and done.next_seq >= 10 + RESERVE
    with relay(tmp_path / "edge", database_url) as room:
        found = room.stream.projector.account(repo.did)
        assert found is not None and found[1] is not None and found[1].rev == repo.rev
        assert room.read() == [1, 2, 3, 4]
    # The lost relay, should it come back, is refused.
    with pytest.raises(StoreError, match="store-log"):
        Room(tmp_path / "relay", database_url)


def test_what_the_operator_knows_of_the_lost_relay_counts(tmp_path: Path, database_url: str) -> None:
    network = Network(1)
    network.commit(1, 1)
    copied(tmp_path, network.frames)
    done = promoted(tmp_path, database_url, beyond=7_000_000_000)
    assert done.next_seq == 7_000_000_001 + RESERVE
    with relay(tmp_path, database_url) as room:
        room.submit(1)
        room.wait_for(done.next_seq)
        assert room.read(2) == [done.next_seq]
        # The last that the lost relay gave out is a cursor of some consumer.
        assert room.read(7_000_000_000) == [done.next_seq]


def test_a_promotion_that_was_broken_off(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a relay nor an edge starts on what it left; run again it gives the same accounts."""
    network = Network(4)
    network.commit(*[1, 2, 3, 4] * 6)
    network.account(2, "deleted")
    copied(tmp_path, network.frames)
    rewritten: list[Segment] = []

    def broken(segment: Segment, change: Change) -> int:
        if len(rewritten) == 3:
            raise OSError("the disk is full")
        rewritten.append(segment)
        return rewrite(segment, change)

    monkeypatch.setattr(promote, "rewrite", broken)
    with pytest.raises(LogError, match="the disk is full"):
        promoted(tmp_path, database_url)
    segment_log, db = SegmentLog(tmp_path / "persist"), open_database(database_url, max_connections=2)
    with closing(segment_log), closing(db), pytest.raises(LogError, match=r"log-edge.*relay edge promote"):
        ownership.claim(segment_log, db)
    settings = Settings.from_environment({"RELAY_EDGE_UPSTREAM": "https://relay.test", "DATABASE_URL": database_url})
    with pytest.raises(LogError, match="log-relay"):
        Edge(replace(settings, persist_dir=tmp_path / "persist"))
    monkeypatch.setattr(promote, "rewrite", rewrite)
    with caplog.at_level(logging.ERROR):
        done = promoted(tmp_path, database_url)
    assert done.events == 25 and done.new_accounts < 4
    with relay(tmp_path, database_url) as room:
        assert room.stream.next_uid == 5
        assert set(listed(room)) == _dids(network, 1, 3, 4)
        assert len(room.read()) == 25 - 6
    with pytest.raises(LogError, match=r"log-relay.*nothing to promote"):
        promoted(tmp_path, database_url)


def test_a_log_that_no_edge_wrote(tmp_path: Path, database_url: str) -> None:
    room = Room(tmp_path, database_url)
    room.start()
    room.submit(1)
    room.wait_for(1)
    room.stop()
    with pytest.raises(LogError, match=r"log-relay.*nothing to promote"):
        promoted(tmp_path, database_url)
    with relay(tmp_path, database_url) as room:
        assert room.read() == [1] and room.log.next_seq < RESERVE
    with pytest.raises(LogError, match="nothing to promote"):
        promoted(tmp_path / "empty", database_url)


def test_the_relay_serves_while_the_database_is_brought_up(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "WAIT_FOR_EVENTS", 5)
    network = Network(2)
    network.commit(*[1, 2] * 6)
    network.account(2, "deleted")
    copied(tmp_path, network.frames)
    promoted(tmp_path, database_url)
    room = Room(tmp_path, database_url)
    assert room.stream.projector.behind
    assert len(room.read()) == 13 - 6
    room.start()
    room.wait_until(lambda: not room.stream.projector.behind)
    assert set(listed(room)) == _dids(network, 1)
    assert len(room.read()) == 13 - 6
    room.stop()


def test_damage_stays_where_it_is(tmp_path: Path, database_url: str) -> None:
    network = Network(2)
    network.commit(*[1, 2] * 8)
    copied(tmp_path, network.frames)
    path = min((tmp_path / "persist").glob("*.seg"))
    data = bytearray(path.read_bytes())
    # In the frame of the first record.
    data[200] ^= 1
    path.write_bytes(data)
    assert promoted(tmp_path, database_url).events == 15
    with relay(tmp_path, database_url) as room:
        assert room.read() == list(range(2, 17))
        assert set(listed(room)) == _dids(network, 1, 2)
