"""Accounts that act for hours without growing, and hosts that come and go without losing what they have not sent.

Used by the soak's fleet. An account signs its commits when they are due and keeps a few records only, so that neither
disk nor memory of the bench grows with its length. A host keeps its last events for a relay that comes back with a
cursor. Must not know when anything happens.
"""

from __future__ import annotations

import random
import time
from typing import Any

import gevent
from gevent.event import Event as Signal
from gevent.socket import socket

from tests.support.pds import FakePds, error_frame, websocket_frame
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, delete, did_document, tid

RECORDS = 20
COLLECTIONS = ("app.bsky.feed.like", "app.bsky.feed.post", "app.bsky.graph.follow")
# A host keeps its events for so long at least, and at most for twice as long.
KEPT_SECONDS = 600.0
# What it says of a relay that comes back later; it has nothing for that one from then on.
TOO_LATE = "no longer has event"


class Account:
    """One account. `commits` and `identities` are how many of its events its host was given."""

    def __init__(self, number: int) -> None:
        self.repo = RepoBuilder(account_did(number), SigningKey.create("k256", number))
        self.commits = self.identities = 0
        self.born = time.monotonic()
        self._number = number
        self._collection = COLLECTIONS[number % len(COLLECTIONS)]

    @property
    def did(self) -> str:
        return self.repo.did

    def commit(self, seq: int) -> bytes:
        """The frame of one new record, with the oldest deleted once there are enough; its times are of now."""
        micros = max(time.time_ns() // 1000, self.repo.micros + 1)
        writes = [create(f"{self._collection}/{tid(micros)}", {"$type": self._collection, "seq": seq})]
        if len(self.repo.records) >= RECORDS:
            writes.append(delete(next(iter(self.repo.records))))
        self.commits += 1
        return self.repo.commit(*writes, at_us=micros).frame(seq)

    def change_identity(self, seq: int) -> bytes:
        """The frame of an `#identity`: another handle, and every second time another signing key."""
        self.identities += 1
        if self.identities % 2:
            self.repo.key = SigningKey.create("k256", self._number + (self.identities << 40))
        self.repo.micros = max(time.time_ns() // 1000, self.repo.micros + 1)
        return self.repo.identity_frame(seq, self._handle)

    def document(self, pds_url: str) -> dict[str, Any]:
        """What the directory says of it now."""
        return did_document(self.did, self.repo.key, pds_url, self._handle)

    @property
    def _handle(self) -> str:
        return f"user-{self.identities}.test"


class SoakHost(FakePds):
    """A host with `accounts`. A relay without a cursor gets what is kept, too: nothing may be missing."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.accounts: list[Account] = []
        self.seq = 0
        self._kept: list[bytes] = []
        # How many of them are from before the present stretch of KEPT_SECONDS, and when that began.
        self._older = 0
        self._began = time.monotonic()

    def commit(self, account: Account | None = None) -> None:
        """Let `account` commit, or any of the accounts."""
        self._send((account or random.choice(self.accounts)).commit(self.seq + 1))

    def change_identity(self, account: Account) -> None:
        """Announce the identity of `account` anew."""
        self._send(account.change_identity(self.seq + 1))

    def go_away(self) -> None:
        """Cut the connection and refuse new ones."""
        self.refuse_upgrade = 503
        self.hang_up()

    def come_back(self) -> None:
        """Take connections again."""
        self.refuse_upgrade = None

    def _send(self, event: bytes) -> None:
        self.seq += 1
        self._kept.append(websocket_frame(event))
        if time.monotonic() - self._began > KEPT_SECONDS:
            del self._kept[: self._older]
            self._older, self._began = len(self._kept), time.monotonic()
        news, self._news = self._news, Signal()
        news.set()

    def _stream(self, sock: socket, cursor: str | None) -> None:
        sent = int(cursor or 0)
        if sent > self.seq:
            # The cursor is of a host that had this port before.
            sock.sendall(websocket_frame(error_frame("FutureCursor")))
            return
        reader = gevent.spawn(self._read, sock)
        try:
            while not reader.dead:
                news = self._news
                if sent < self.seq:
                    first = self.seq - len(self._kept)
                    assert sent >= first, f"{self.hostname} {TOO_LATE} {sent + 1}"
                    due, sent = self._kept[sent - first :], self.seq
                    sock.sendall(b"".join(due))
                    continue
                ends: list[Signal | gevent.Greenlet[[socket], None]] = [news, reader]
                gevent.wait(ends, count=1)
        finally:
            reader.kill()
