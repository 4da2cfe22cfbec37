"""Promise 16: What a takedown or deletion hides is unreadable at once, from memory and disk, and after any restart; a
reversal shows it again.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from relay.atproto.frames import Event, Kind, decode, identity_frame
from relay.stream.feed import Feed
from tests.support.repo import RepoBuilder, SigningKey, account_did
from tests.support.stream import TIME, Room, payloads, submit_commit

KEY = SigningKey.create("k256")
ACCOUNTS = (1, 2, 3)
TURNS = 80


def test_a_takedown_hides_at_once_and_for_good(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.eventlog.reader.BLOCK", 2000)
    room = Room(tmp_path, database_url)
    room.start()
    repos = {uid: RepoBuilder(account_did(uid), KEY) for uid in (1, 2)}
    for number in range(60):
        submit_commit(room, number % 2 + 1, repos[number % 2 + 1])
        if number % 7 == 0:
            room.wait_for(number + 1)
    room.wait_for(60)
    midway = room.stream.firehose.attach(0)
    assert midway.next(1.0) and 0 < midway.position < 60
    room.submit(1, status="takendown", own=True, hides=True)
    room.submit(1, kind=Kind.IDENTITY, parts=identity_frame(account_did(1), TIME, None))
    room.wait_for(62)

    def dids(events: list[Event]) -> list[tuple[int, str]]:
        return [(event.seq, event.did) for event in events]

    theirs = [(seq, account_did(2)) for seq in range(2, 61, 2)]
    after = [(61, account_did(1)), (62, account_did(1))]
    assert dids(room.events(0)) == theirs + after
    rest: list[Event] = []
    while midway.position < 62:
        decoded = map(decode, payloads(midway.next(1.0) or b""))
        rest += [event for event in decoded if isinstance(event, Event)]
    assert dids(rest) == [entry for entry in theirs if entry[0] >= rest[0].seq] + after
    # Killed before SQL heard of it; then once more from SQL alone.
    room.abandon()
    for _ in range(2):
        room = Room(tmp_path, database_url)
        assert dids(room.events(0)) == theirs + after
        room.stop()
    room = Room(tmp_path, database_url)
    room.start()
    room.submit(1, own=True, reveals=True)
    room.wait_for(63)
    assert [seq for seq, _ in dids(room.events(0))] == list(range(1, 64))
    room.abandon()
    room = Room(tmp_path, database_url)
    assert [seq for seq, _ in dids(room.events(0))] == list(range(1, 64)), "lifted for good, crash or not"
    room.stop()
    room = Room(tmp_path, database_url)
    assert [seq for seq, _ in dids(room.events(0))] == list(range(1, 64))
    room.stop()


class Attack:
    """Random events, takedowns, deletions, reversals and ends of one log, and what of it may be read by now."""

    def __init__(self, folder: Path, url: str, chance: random.Random) -> None:
        self.folder, self.url, self.chance = folder, url, chance
        self.repos = {uid: RepoBuilder(account_did(uid), KEY) for uid in ACCOUNTS}
        self.sent: list[tuple[int, int, bool]] = []
        self.hidden: dict[int, int] = {}
        self.begin(0)

    def begin(self, upstream_seq: int) -> None:
        """Another life, whose host goes on after `upstream_seq`."""
        self.room = Room(self.folder, self.url, segment_bytes=4_000)
        self.room.upstream_seq = upstream_seq
        self.room.start()
        self.midway = [self.room.stream.firehose.attach(0) for _ in range(3)]

    def turn(self) -> None:
        uid, before = self.chance.choice(ACCOUNTS), self.room.stream.firehose.last_seq
        what = self.chance.choices(("commit", "hide", "show", "stop", "crash"), (12, 3, 3, 1, 1))[0]
        if what == "stop":
            self.room.stop()
            return self.begin(self.room.upstream_seq)
        if what == "crash":
            self.room.abandon()
            return self.begin(self.room.upstream_seq)
        if what == "commit":
            submit_commit(self.room, uid, self.repos[uid])
        elif what == "show":
            self.room.submit(uid, own=True, own_status="active", reveals=True)
        elif self.chance.random() < 0.5:
            self.room.submit(uid, own=True, own_status="takendown", status="takendown", hides=True)
        else:
            self.room.submit(uid, status="deleted", hides=True)
        self.room.wait_until(lambda: self.room.stream.firehose.last_seq > before)
        seq = self.room.stream.firehose.last_seq
        self.sent.append((seq, uid, what != "commit"))
        if what == "hide":
            self.hidden[uid] = seq
        elif what == "show":
            self.hidden.pop(uid, None)
        return None

    def readable(self) -> list[int]:
        return [seq for seq, uid, status in self.sent if status or seq >= self.hidden.get(uid, 0)]

    def look(self) -> None:
        position = self.chance.choice([0, *(seq for seq, _, _ in self.sent)])
        assert self.room.read(position) == [seq for seq in self.readable() if seq > position]
        # Consumers that are somewhere in the past, each a bit further at a time.
        feed = self.chance.choice(self.midway)
        assert set(step(feed)) <= set(self.readable())


def step(feed: Feed) -> list[int]:
    found = map(decode, payloads(feed.next(0.001) or b""))
    return [event.seq for event in found if isinstance(event, Event)]


@pytest.mark.parametrize("seed", range(4))
def test_in_whatever_order_accounts_are_hidden_and_shown(
    tmp_path: Path, database_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.eventlog.reader.BLOCK", 2_000)
    attack = Attack(tmp_path, database_url, random.Random(seed))
    for _ in range(TURNS):
        attack.turn()
        attack.look()
    assert attack.hidden and len(attack.readable()) < len(attack.sent)
    attack.room.stop()
