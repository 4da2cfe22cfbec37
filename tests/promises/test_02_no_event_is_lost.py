"""Promise 2: An event is in the log, or was rejected for a counted reason, or its host's cursor has not moved past it.

SIGKILL at random points under load: nothing lost, nothing repeated, no seq used again, SQL as the log says. A reference
consumer follows and resumes by cursor. `KILL_ROUNDS` is how often; `make kill-test ROUNDS=1000` by hand.
"""

from __future__ import annotations

import itertools
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
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
from tests.support.wait import until

ROUNDS = int(os.environ.get("KILL_ROUNDS", "50"))
ROUNDS_PER_LOG = 50
ROOT = Path(__file__).parents[2]
EVENTS_PER_ROUND = 220
DONE = "done\n"

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


class Lives:
    """The process that is killed and started again; `port` is that of the present life."""

    def __init__(self, folder: Path, url: str, ledger: Path) -> None:
        self.errors = folder / "errors"
        command = [sys.executable, "-m", "tests.support.logging_process", str(folder), url, str(ledger)]
        with self.errors.open("wb") as errors:
            self.program = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                process_group=0,
            )
        self.pid = self.port = 0

    def begin(self) -> None:
        self._say()
        # The life before had all of the ledger logged when it was killed.
        while (line := self._line()) == DONE:
            pass
        self.pid, self.port = map(int, line.split())

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def finish(self) -> None:
        assert self._line() == DONE

    def end(self) -> None:
        self._say()
        assert self.program.wait(60) == 0, self.errors.read_text()
        assert "Traceback" not in self.errors.read_text(), self.errors.read_text()

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.program.pid, signal.SIGKILL)
        self.program.wait(20)

    def _say(self) -> None:
        assert self.program.stdin
        self.program.stdin.write("\n")
        self.program.stdin.flush()

    def _line(self) -> str:
        assert self.program.stdout
        line = self.program.stdout.readline()
        assert line, self.errors.read_text()
        return line


@pytest.mark.timeout(600)
@pytest.mark.parametrize("rounds_before", range(0, ROUNDS, ROUNDS_PER_LOG))
def test_kills_at_any_moment_lose_and_repeat_nothing(tmp_path: Path, database_url: str, rounds_before: int) -> None:
    rounds = min(ROUNDS - rounds_before, ROUNDS_PER_LOG)
    chance = random.Random(os.environ.get("KILL_SEED"))
    ledger = make_ledger(rounds * EVENTS_PER_ROUND, chance)
    ledger_file = tmp_path / "ledger"
    ledger_file.write_bytes(pickle.dumps(ledger))
    expected = {
        (event.did, event.time): (host, entry, event)
        for host, entries in ledger.items()
        for entry in entries
        if not entry.rejected and isinstance(event := frames.decode(entry.frame), Event)
    }
    consumer = Consumer()
    seen = []
    with closing(Lives(tmp_path, database_url, ledger_file)) as lives:
        for _ in range(rounds):
            lives.begin()
            reader = consumer.follow(lives.port)
            time.sleep(chance.random() * 0.25)
            lives.kill()
            reader.join(60)
            seen.append(len(consumer.events))
        lives.begin()
        reader = consumer.follow(lives.port)
        lives.finish()
        # What has not come by then is shown below.
        with suppress(AssertionError):
            until(lambda: len(consumer.events) >= len(expected), 20)
        lives.end()
        reader.join(60)
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
