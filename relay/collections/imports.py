"""Imports the collection index of another relay, which saw the years before this one did.

Started and stopped by admins, one import at a time, in a greenlet of its own; nothing waits for it. Where it stands is
in SQL with what it took, so that it goes on after a stop, a restart or a kill. Must not touch the event path.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import gevent
from gevent.lock import BoundedSemaphore

from relay.atproto.hostname import Endpoint
from relay.collections import source as collections_source
from relay.kit import metrics
from relay.kit.errors import BackfillError, ImportBusy, StoreError
from relay.net.http import GuardedHttp
from relay.net.pages import Ending
from relay.store import collection_imports as table
from relay.store import collections
from relay.store.collection_imports import Step, StepMoved
from relay.store.database import Database
from relay.store.decisions import import_value
from relay.stream.decisions import Decisions

# A page at a time, and no more than five a second: 10,000 accounts.
PAUSE_SECONDS = 0.2
RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 60.0, 60.0, 60.0, 60.0)
DATABASE_SECONDS = 10.0
# After this many collections in a row that cannot be fetched, it is the source that is broken.
FAILED_IN_A_ROW = 3
# Relays may send empty pages where they pass over inactive accounts. More than this is not a list.
EMPTY_PAGES = 10_000
MAX_LISTED = 1_000_000_000

T = TypeVar("T")

log = logging.getLogger(__name__)


class Imports:
    """The import that runs, if one does. `pause` and `retries` are seconds; tests make them short."""

    def __init__(
        self,
        db: Database,
        http: GuardedHttp,
        decisions: Decisions,
        *,
        pause: float = PAUSE_SECONDS,
        retries: Sequence[float] = RETRY_SECONDS,
    ) -> None:
        self._db = db
        self._http = http
        self._decisions = decisions
        self._pause = pause
        self._retries = retries
        self._turn = BoundedSemaphore()
        self._source: str | None = None
        self._greenlet: gevent.Greenlet[[str], None] | None = None

    def start(self) -> None:
        """Go on with the import that was under way when the relay stopped. Raises StoreError."""
        source = self._db.read(table.running)
        if source is not None:
            log.info("the import of collections from %s goes on", source)
            self._spawn(source)

    def stop(self) -> None:
        """Stop for now: the next start goes on."""
        if self._greenlet is not None:
            self._greenlet.kill(timeout=1.0)
            self._greenlet = None

    def go_on(self) -> None:
        """The database is an older one: go on from where it says that an import stands. Raises StoreError."""
        with self._turn:
            source = self._db.read(table.running)
            if self._greenlet is not None:
                self._greenlet.kill(timeout=5.0)
            self._source = None
            if source is not None:
                log.warning("the import of collections from %s goes on from where the database has it", source)
                self._spawn(source)

    def begin(self, source: Endpoint, nsids: Sequence[str] = ()) -> None:
        """Import `nsids`, or all collections known here and those that the source lists.

        Goes on where an earlier import from `source` stood. Raises ImportBusy while one from another source runs,
        and StoreError.
        """
        with self._turn:
            if self._source is not None and self._source != source.url:
                raise ImportBusy(self._source)
            wanted = nsids or self._db.read(collections.names)
            now = time.time()
            self._db.write(table.begin, source.url, wanted, named=bool(nsids), now=now)
            self._decisions.note("import", source.url, import_value(nsids, now, ended=False))
            if self._source is None:
                self._spawn(source.url)
        self._decisions.store()

    def end(self, source: Endpoint) -> bool:
        """Stop the import from `source` until it is begun again; False when none was under way. Raises StoreError."""
        with self._turn:
            if self._source != source.url:
                return False
            now = time.time()
            self._db.write(table.end, source.url, None, now)
            self._decisions.note("import", source.url, import_value((), now, ended=True))
            if self._greenlet is not None:
                self._greenlet.kill(timeout=5.0)
            self._source = None
        self._decisions.store()
        return True

    def _spawn(self, source: str) -> None:
        self._source = source
        self._greenlet = gevent.spawn(self._run, source)

    def _run(self, source: str) -> None:
        following: str | None = source
        while following is not None:
            source = following
            try:
                self._discover(source)
                self._import(source)
                following = self._finish(source)
            except StepMoved:
                log.debug("the import of collections from %s is not where the database had it", source)
                gevent.sleep(DATABASE_SECONDS)
            except StoreError as error:
                log.debug("the import from %s waits for the database: %s", source, error)
                gevent.sleep(DATABASE_SECONDS)
            except BackfillError as error:
                self._fail(source, str(error))
                return
            except Exception:
                log.exception("the import of collections from %s crashed", source)
                self._fail(source, "an error of this relay: see its log")
                return

    def _finish(self, source: str) -> str | None:
        """End the import of `source` if it is complete, and say which one to go on with, if any."""
        with self._turn:
            if not self._db.write(table.finish, source, time.time()):
                return source
            log.info("the import of collections from %s is complete", source)
            # In an older database another one may have been under way.
            self._source = self._db.read(table.running)
            return self._source

    def _fail(self, source: str, error: str) -> None:
        log.warning("the import of collections from %s has failed: %s", source, error)
        while True:
            try:
                with self._turn:
                    self._db.write(table.end, source, error, time.time())
                    self._source = None
                    return
            except StoreError:
                gevent.sleep(DATABASE_SECONDS)

    def _discover(self, source: str) -> None:
        if self._db.read(table.to_discover, source):
            names = self._patiently(partial(collections_source.collections, self._http, source))
            self._db.write(table.discovered, source, names)

    def _import(self, source: str) -> None:
        """Page every collection that is left. Raises BackfillError when the source is not worth asking further."""
        failed_in_a_row = 0
        while (step := self._db.read(table.next_step, source)) is not None:
            try:
                self._page_through(source, step)
                failed_in_a_row = 0
            except BackfillError as error:
                failed_in_a_row += 1
                if error.reason != "backfill-source":
                    log.warning("collection %s is not imported from %s: %s", step.nsid, source, error)
                    # A source that is away will take its cursor back; one that is broken gave a broken one.
                    anew = error.reason != "backfill-unavailable"
                    self._db.write(table.give_up, source, step.nsid, str(error), anew=anew)
                if error.reason == "backfill-source" or failed_in_a_row == FAILED_IN_A_ROW:
                    raise

    def _page_through(self, source: str, step: Step) -> None:
        empty = 0
        ending = Ending(step.cursor)
        while True:
            page = self._patiently(partial(collections_source.page, self._http, source, step.nsid, step.cursor))
            empty = 0 if page.listed else empty + 1
            listed = step.listed + page.listed
            if ending.repeats(page.cursor) or empty > EMPTY_PAGES or listed > MAX_LISTED:
                raise BackfillError("backfill-endless", f"{step.nsid}: {listed} accounts, and the list does not end")
            started = time.monotonic()
            taken = self._db.write(table.take_page, source, step, sorted(set(page.dids)), page.listed, page.cursor)
            metrics.BACKFILL_ACCOUNTS.labels("taken").inc(taken)
            metrics.BACKFILL_ACCOUNTS.labels("unknown").inc(page.listed - taken)
            if page.cursor is None:
                return
            step = Step(step.nsid, page.cursor, listed)
            # The database is there for the events: no more than half of its writer's time is for this.
            gevent.sleep(max(self._pause, time.monotonic() - started))

    def _patiently(self, ask: Callable[[], T]) -> T:
        """What `ask` returns, asked again after a while as long as that may help. Raises BackfillError."""
        for delay in self._retries:
            try:
                return ask()
            except BackfillError as error:
                if error.reason in ("backfill-source", "backfill-refused"):
                    raise
                log.info("the source of the import does not answer: %s", error)
                metrics.BACKFILL_FAILURES.inc()
                gevent.sleep(max(delay, error.retry_after))
        return ask()
