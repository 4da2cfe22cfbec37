"""What operators decided and no event says, kept beside the log, so that an older database gets it back.

Hosts and imports note each decision once it is in force, and it is put into SQL again when that is found to lack it: at
the start, and while the relay runs. The file's layout is in `docs/log-format.md`. Must not know what a decision means.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from google_crc32c import value as crc32c

from relay.eventlog import disk
from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.errors import LogError, StoreError
from relay.store import decisions as table
from relay.store.database import Database
from relay.store.decisions import Decision, Kind
from relay.stream.disk_thread import DiskThread

NAME = "decisions"
# Hosts that were taken in, most of them. The oldest goes: most backups have it.
MAX_DECISIONS = 20_000
LOOK_SECONDS = 5.0

log = logging.getLogger(__name__)


class Decisions:
    """The last decision of each kind and key, by number. Opened before SQL is brought up to the log."""

    def __init__(self, directory: Path, db: Database) -> None:
        """Put into SQL what it lacks. Raises StoreError, LogError."""
        self._path = directory / NAME
        self._db = db
        self._disk = DiskThread(NAME)
        self._turn = BoundedSemaphore()
        self._loop = Loop("decisions", self._pass, LOOK_SECONDS)
        self._watchers: list[Callable[[], None]] = []
        try:
            self._kept = {(one.kind, one.key): one for one in load(self._path)}
        except OSError as error:
            raise LogError("log-io", str(error)) from error
        self._in_file = max((one.number for one in self._kept.values()), default=0)
        self._in_sql = db.read(table.last)
        self._last = max(self._in_file, self._in_sql)
        if self._in_sql < self._in_file:
            self._put_back()
        self._take_over()
        metrics.show_bound("decisions", lambda: len(self._kept), MAX_DECISIONS)

    @property
    def problem(self) -> str | None:
        """That the disk does not answer, in words, or None."""
        return self._disk.problem

    def watch(self, went_back: Callable[[], None]) -> None:
        """Have `went_back` called when an older database was given back what it lacked; it may raise StoreError."""
        self._watchers.append(went_back)

    def note(self, kind: Kind, key: str, value: Any) -> None:
        """Keep what was decided and is in force; `value` is as `store.decisions` says. On the disk in five seconds."""
        self._last += 1
        # At the end, so that they stay in the order of their numbers.
        self._kept.pop((kind, key), None)
        self._kept[kind, key] = Decision(self._last, kind, key, value)
        if len(self._kept) > MAX_DECISIONS:
            del self._kept[next(iter(self._kept))]

    def store(self) -> None:
        """Have all that was noted on the disk, before an operator is answered. What fails is tried again."""
        with self._turn:
            if self._in_file < self._last:
                number, data = self._last, encoded(list(self._kept.values()))
                try:
                    self._disk.run(disk.replace, self._path, data)
                except OSError as error:
                    log.warning("the file %s cannot be written: %s", NAME, error)
                    return
                self._in_file = number
            # SQL may say that it has a decision once the file has it: otherwise nothing would show a lack.
            if self._in_sql < self._in_file:
                try:
                    self._db.write(table.put_last, self._in_file)
                except StoreError as error:
                    log.debug("the database does not know of the last decision: %s", error)
                    return
                self._in_sql = self._in_file

    def start(self) -> None:
        """Look every five seconds whether SQL has gone back, and write what was noted meanwhile."""
        self._loop.start(after=LOOK_SECONDS)

    def stop(self, timeout: float) -> None:
        """Write the last ones, unless that takes longer than `timeout` seconds: what is not on the disk by then is in
        the database alone.
        """
        deadline = time.monotonic() + timeout
        self._loop.stop(min(timeout, LOOK_SECONDS))
        # Not by an Exception: a transaction would be rolled back, for which a database that hangs has no answer either.
        late = gevent.with_timeout(max(deadline - time.monotonic(), 0.1), self.store, timeout_value=True)
        if late:
            log.warning("the file %s cannot be written: %s", NAME, f"no answer in {timeout:.0f} s")

    def look(self) -> None:
        """See whether SQL has all that it had, and put back what it lacks. Raises StoreError."""
        with self._turn:
            found = self._db.read(table.last)
            if found < self._in_sql:
                log.error("the database went back: decisions %d to %d are put back", found + 1, self._in_sql)
                self._in_sql = found
                self._put_back()

    def _pass(self) -> None:
        try:
            self.look()
        except StoreError as error:
            log.debug("whether the database lacks decisions is not known: %s", error)
        self.store()

    def _put_back(self) -> None:
        """Give SQL what it lacks. Until all of it is in force SQL is not told that it has it."""
        lacking = [one for one in self._kept.values() if one.number > self._in_sql]
        self._db.write(table.put_back, lacking)
        for went_back in self._watchers:
            went_back()
        self._db.write(table.put_last, self._last)
        log.warning("%d decisions of operators were put back into the database", len(lacking))
        self._in_sql = self._last

    def _take_over(self) -> None:
        """What SQL says, where that was decided without us: by an older relay, or by a command beside it."""
        rows = self._db.read(table.current)
        for (kind, key), value in rows.items():
            known = self._kept.get((kind, key))
            if known is None or (kind != "host" and known.value != value):
                self.note(kind, key, value)
        for kept in list(self._kept.values()):
            if kept.kind == "ban" and kept.value and ("ban", kept.key) not in rows:
                self.note("ban", kept.key, False)


def encoded(decisions: list[Decision]) -> bytes:
    """The file of these decisions."""
    text = "".join(f"{json.dumps(one)}\n" for one in decisions).encode("ascii")
    return b"%08x\n%s" % (crc32c(text), text)


def load(path: Path) -> list[Decision]:
    """The decisions in the file `path`, by number; none when there is none or it is damaged. Raises OSError."""
    try:
        checksum, _, text = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return []
    if checksum != b"%08x" % crc32c(text):
        log.warning("the file %s is damaged, and is not used", path.name)
        return []
    return [Decision(*json.loads(line)) for line in text.splitlines()]
