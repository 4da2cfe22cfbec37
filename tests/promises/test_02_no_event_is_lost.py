"""Promise 2: An event is in the log, or was rejected for a counted reason, or its host's cursor has not moved past it.

SIGKILL at random points under load: nothing lost, nothing repeated, no seq used again, SQL as the log says. A reference
consumer follows and resumes by cursor. `KILL_ROUNDS` is how often; `make kill-test ROUNDS=1000` by hand.
"""

from __future__ import annotations

import itertools
import os
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TypeAlias

import pytest

from relay.atproto import frames
from relay.atproto.frames import Account, Commit, Event
from relay.eventlog.log import SegmentLog
from relay.eventlog.reader import LogReader
from relay.store import accounts, hosts, projection
from relay.store.database import Database
from relay.store.open import open_database
from tests.support.ledger import Entry, Ledger, make_ledger
from tests.support.stream import payloads, whole_frames

ROUNDS = int(os.environ.get("KILL_ROUNDS", "50"))
ROUNDS_PER_LOG = 50
ROOT = Path(__file__).parents[2]
EVENTS_PER_ROUND = 220

# By DID and time: the host that sends the event, and the event as it is and as it is decoded.
Expected: TypeAlias = dict[tuple[str, str], tuple[str, Entry, Event]]


class Consumer:
    """Reads the firehose into `events`, from where it last was."""

    def __init__(self) -> None:
        self.events: list[tuple[int, str, str]] = []

    def follow(self, port: int) -> threading.Thread:
        connection = socket.create_connection(("127.0.0.1", port))
        cursor = self.events[-1][0] if self.events else 0
        connection.sendall(b"%d\n" % cursor)
        thread = threading.Thread(target=self._read, args=(connection,), daemon=True)
        thread.start()
        return thread

    def _read(self, connection: socket.socket) -> None:
        buffer = b""
        with connection:
            while True:
                try:
                    data = connection.recv(1 << 16)
                except ConnectionResetError:
                    return
                if not data:
                    return
                buffer += data
                whole = whole_frames(buffer)
                for payload in payloads(buffer[:whole]):
                    event = frames.decode(payload)
                    assert isinstance(event, Event)
                    self.events.append((event.seq, event.did, event.time))
                buffer = buffer[whole:]


class Killed:
    """One life of the process."""

    def __init__(self, folder: Path, url: str, ledger: Path) -> None:
        command = [sys.executable, "-m", "tests.support.logging_process", str(folder), url, str(ledger)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.strip().isdigit(), self.process.communicate()[1]
        self.port = int(line)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=20)

    def finish(self) -> None:
        assert self.process.stdout and self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        _, errors = self.process.communicate(timeout=20)
        assert self.process.returncode == 0 and "Traceback" not in errors, errors


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rounds_before", range(0, ROUNDS, ROUNDS_PER_LOG))
def test_kill(tmp_path: Path, database_url: str, rounds_before: int) -> None:
    rounds = min(ROUNDS - rounds_before, ROUNDS_PER_LOG)
    chance = random.Random(os.environ.get("KILL_SEED"))
    ledger = make_ledger(rounds * EVENTS_PER_ROUND, chance)
    ledger_file = tmp_path / "ledger"
    ledger_file.write_bytes(pickle.dumps(ledger))
    consumer = Consumer()
    seen = []
    for _ in range(rounds):
        life = Killed(tmp_path, database_url, ledger_file)
        reader = consumer.follow(life.port)
        time.sleep(chance.random() * 0.25)
        life.kill()
        reader.join(20)
        seen.append(len(consumer.events))
    life = Killed(tmp_path, database_url, ledger_file)
    reader = consumer.follow(life.port)
    life.finish()
    expected = {
        (event.did, event.time): (host, entry, event)
        for host, entries in ledger.items()
        for entry in entries
        if not entry.rejected and isinstance(event := frames.decode(entry.frame), Event)
    }
    deadline = time.monotonic() + 20
    while len(consumer.events) < len(expected) and time.monotonic() < deadline:
        time.sleep(0.01)
    life.end()
    reader.join(20)
    print(f"\n{rounds} kills, {len(expected)} events, {len(set(seen))} of them between which events came")
    check_consumer(consumer.events, set(expected))
    check_log_and_sql(tmp_path, database_url, ledger, expected, consumer.events)


def check_consumer(events: list[tuple[int, str, str]], expected: set[tuple[str, str]]) -> None:
    keys = [(did, at) for _, did, at in events]
    assert len(keys) == len(set(keys)), "repeated"
    assert set(keys) == expected, "lost"
    seqs = [seq for seq, _, _ in events]
    assert all(earlier < later for earlier, later in itertools.pairwise(seqs)), "seq went back"
    per_account: dict[str, str] = {}
    for _, did, at in events:
        assert per_account.get(did, "") < at, "an account's events are out of order"
        per_account[did] = at


def check_log_and_sql(
    folder: Path, url: str, ledger: Ledger, expected: Expected, events: list[tuple[int, str, str]]
) -> None:
    log = SegmentLog(folder / "persist")
    reader = LogReader(log)
    logged: list[tuple[int, str, str]] = []
    uids: dict[str, int] = {}
    # A life that was killed before its first event may have passed over numbers.
    while records := reader.read(logged[-1][0] if logged else log.first_seq - 1):
        for record in records:
            event = frames.decode(record.frame)
            assert isinstance(event, Event) and event.seq == record.seq
            _, entry, _ = expected[event.did, event.time]
            assert record.upstream_seq == entry.seq
            assert uids.setdefault(event.did, record.uid) == record.uid
            logged.append((record.seq, event.did, event.time))
    assert logged == events
    assert len(set(uids.values())) == len(uids)
    database = open_database(url, max_connections=1)
    assert database.read(projection.position)[0] == log.last_seq
    log.close()
    for host, entries in ledger.items():
        row = database.read(hosts.by_hostname, host)
        assert row is not None and row.last_seq == entries[-1].seq
        assert row.account_count == len({event.did for name, _, event in expected.values() if name == host})
    check_accounts(database, uids, expected)
    database.close()


def check_accounts(database: Database, uids: dict[str, int], expected: Expected) -> None:
    for did, uid in uids.items():
        mine = [(entry, event) for _, entry, event in expected.values() if event.did == did]
        statuses = [event.status or "active" for _, event in mine if isinstance(event, Account)]
        commits = [(entry, event) for entry, event in mine if isinstance(event, Commit)]
        found = database.read(accounts.many_by_did, [did]).get(did)
        assert found is not None
        account, repo = found
        assert (account.uid, account.upstream_status) == (uid, statuses[-1] if statuses else "active")
        entry, event = commits[-1]
        assert repo is not None and (repo.rev, repo.commit, repo.data) == (event.rev, event.commit, entry.data)
