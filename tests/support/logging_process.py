"""The process that the kill test kills: the whole stream room, fed from a ledger as hosts would feed it.

    python -m tests.support.logging_process FOLDER DATABASE_URL LEDGER

Each line of input is the start of a process, forked when all is loaded, which takes most of the time of a start. It
prints its id and the port of its firehose: a consumer sends its cursor as a line and gets joined WebSocket frames for
ever. Every host is resumed from its cursor; events are settled in any order, but one account's in theirs. When the
ledger is all logged it prints `done`, and goes on serving; after another line it ends in order, and with it the
program. After a SIGKILL the next line starts the next one.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import os
import pickle
import random
import socket
import sys
from pathlib import Path
from typing import TypeAlias

import gevent
from gevent.queue import Queue
from gevent.server import StreamServer

from relay.atproto import frames
from relay.atproto.cid import Cid
from relay.atproto.events import STATUSES
from relay.atproto.frames import Account, Commit
from relay.eventlog.log import SegmentLog
from relay.eventlog.retention import Keep
from relay.store import hosts
from relay.store.accounts import AccountRow, RepoRow
from relay.store.open import open_database
from relay.stream import projector
from relay.stream.cursors import HostCursor
from relay.stream.stream import Stream
from tests.support.ledger import Entry, Ledger
from tests.support.submission import Submission

LANES = 8
# What is not in SQL when this is over is missed by whoever looks.
STOP_SECONDS = 60.0

Turn: TypeAlias = tuple[int, HostCursor, Entry, frames.Event]


class Process:
    """The room and the lanes in front of it."""

    def __init__(self, folder: Path, url: str, ledger: Ledger) -> None:
        self.db = open_database(url, max_connections=2)
        rows = {name: self.db.write(_insert, name) for name in ledger}
        self.stream = Stream(SegmentLog(folder / "persist", segment_bytes=300_000), self.db, Keep(3600.0, 0))
        self.next_uid = self.stream.next_uid
        self.rows: dict[str, AccountRow] = {}
        self.lanes: list[Queue[Turn]] = [Queue(20) for _ in range(LANES)]
        self.stream.start()
        for lane in self.lanes:
            gevent.spawn(self.work, lane)
        self.feeders = [gevent.spawn(self.feed, rows[name].id, entries) for name, entries in ledger.items()]

    def feed(self, host_id: int, entries: list[Entry]) -> None:
        cursor = self.stream.cursors.get(host_id)
        for entry in entries:
            if entry.seq > cursor.position and cursor.begin(entry.seq):
                event = frames.decode(entry.frame)
                assert isinstance(event, frames.Event)
                self.lanes[hash(event.did) % LANES].put((host_id, cursor, entry, event))
                gevent.sleep(random.random() * 0.001)
        while cursor.position < entries[-1].seq:
            gevent.sleep(0.01)

    def work(self, lane: Queue[Turn]) -> None:
        while True:
            host_id, cursor, entry, event = lane.get()
            gevent.sleep(random.choice((0, 0, 0, 0.004)))
            if entry.rejected:
                cursor.finish(entry.seq)
            else:
                self.submit(host_id, cursor, entry, event)

    def submit(self, host_id: int, cursor: HostCursor, entry: Entry, event: frames.Event) -> None:
        row = self.rows.get(event.did)
        if row is None:
            found = self.stream.projector.account(event.did)
            row = found[0] if found else AccountRow(self.take_uid(), event.did, host_id, "active", "active")
        if isinstance(event, Account):
            row = AccountRow(row.uid, row.did, host_id, "active", event.status or "active")
        self.rows[event.did] = row
        repo = None
        if isinstance(event, Commit) and entry.data is not None:
            repo = RepoRow(row.uid, event.rev, event.commit, Cid(entry.data))
        head, tail = frames.split_at_seq(event)
        status = STATUSES.index(row.upstream_status)
        self.stream.sequencer.submit(
            Submission(
                event.kind, row.uid, host_id, entry.seq, status, head, tail, row, repo, lambda: cursor.finish(entry.seq)
            )
        )

    def take_uid(self) -> int:
        self.next_uid += 1
        return self.next_uid - 1

    def serve(self, connection: socket.socket, _address: object) -> None:
        feed = self.stream.firehose.attach(int(connection.makefile("r").readline()))
        while True:
            if (data := feed.next(1.0)) is not None:
                connection.sendall(data)


def _insert(tx: object, name: str) -> hosts.HostRow:
    return hosts.insert(tx, name, no_ssl=False, account_limit=1000, trusted=False)  # type: ignore[arg-type]


def live(folder: Path, url: str, ledger: dict[str, list[Entry]]) -> None:
    """One life, to its end in order."""
    process = Process(folder, url, ledger)
    server = StreamServer(("127.0.0.1", 0), process.serve)
    server.start()
    print(os.getpid(), server.server_port, flush=True)
    gevent.joinall(process.feeders)
    print("done", flush=True)
    # Consumers may lack some of it still, and the standard input is not gevent's: to read it here would hold them up.
    gevent.get_hub().threadpool.apply(sys.stdin.readline)
    process.stream.stop(STOP_SECONDS)
    process.db.close()


def main() -> None:
    # The lives of this process are short: SQL must be written several times in each.
    projector.FLUSH_SECONDS = 0.02
    folder, url, ledger = Path(sys.argv[1]), sys.argv[2], pickle.loads(Path(sys.argv[3]).read_bytes())
    # gevent's own watch the child from a hub, which nothing needs here.
    fork, wait = monkey.get_original("os", "fork"), monkey.get_original("os", "waitpid")
    while sys.stdin.readline():
        pid = fork()
        if not pid:
            gevent.reinit()
            live(folder, url, ledger)
            break
        code = os.waitstatus_to_exitcode(wait(pid, 0)[1])
        if code >= 0:
            sys.exit(code)


if __name__ == "__main__":
    main()
