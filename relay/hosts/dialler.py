"""Dials hosts when they are due, a bounded number at a time, and decides what follows when a connection ends.

One loop looks at the schedule; each dialled host has a greenlet of its own until its connection ends. A host that
waits for its next attempt costs an entry in the schedule and nothing else. Owned by Hosts. Must not know of SQL.
"""

from __future__ import annotations

import logging
import random
import time

import gevent

from relay.hosts import lifecycle
from relay.hosts.host import Host
from relay.hosts.lifecycle import Cause, Status
from relay.hosts.registry import HostRegistry, last_connected
from relay.hosts.schedule import Schedule
from relay.hosts.subscriber import Subscriber
from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.clock import boot_seconds
from relay.net.websocket_connection import NO_DESCRIPTORS, Connection, StreamEnded
from relay.stream.cursors import NONE_YET

MAX_DIALS = 50
# This many for hosts that could not be connected to last time: a silent one keeps its place until its time is up.
MAX_DIALS_AGAIN = 40
START_SPACING_SECONDS = 0.005
LONGEST_SLEEP_SECONDS = 60.0
KILL_SECONDS = 5.0
OUTSTANDING_SECONDS = 1.0
# When to try again once there were no descriptors to spare, give or take a half.
EXHAUSTED_SECONDS = 20.0
# How long a clock that may be wrong is given to be set.
CLOCK_SECONDS = 60.0
# Reasons for which a single message can end a connection.
MESSAGE_REASONS = {"message-stalled", "message-too-big", "websocket-invalid"}

log = logging.getLogger(__name__)


class Dialler:
    """The schedule and the greenlets of the hosts that are dialled or connected."""

    def __init__(self, registry: HostRegistry, subscriber: Subscriber, replay_window: float) -> None:
        self._registry = registry
        self._subscriber = subscriber
        self._replay_window = replay_window
        self._schedule = Schedule()
        self._greenlets: dict[int, gevent.Greenlet[[Host], None]] = {}
        self._dialling: set[int] = set()
        # Those of them that could not be connected to last.
        self._again: set[int] = set()
        self._loop = Loop("dialler", self._dial_those_due, LONGEST_SLEEP_SECONDS)
        metrics.show_bound("dials", lambda: len(self._dialling), MAX_DIALS)

    def start(self) -> None:
        """Plan every known host, spread out so that thousands of handshakes do not make a spike, and begin.

        Those that could not be connected to last come at the end.
        """
        self._let_clock_be_set()
        now = time.monotonic()
        to_connect = 0
        for host in sorted(self._registry, key=_went_wrong):
            if host.status in (Status.ACTIVE, Status.THROTTLED):
                self._set(host, now + to_connect * START_SPACING_SECONDS)
                to_connect += 1
            elif host.status in (Status.IDLE, Status.OFFLINE):
                self._set(host, now + lifecycle.probe_delay(random.random()))
        self._loop.start()

    def stop(self, timeout: float) -> None:
        """End every connection. What was read of a host and not yet taken in comes again from its cursor."""
        self._loop.stop()
        gevent.killall(list(self._greenlets.values()), timeout=timeout)

    def dial_now(self, host: Host) -> None:
        """Connect to the host at once, or when it may be asked again, unless it is banned, dialled or connected."""
        if host.id not in self._greenlets:
            self._plan(host, 0.0)
            self._loop.wake()

    def probe_later(self, host: Host) -> None:
        """Look at the host again in some hours, unless it is banned."""
        self._plan(host, lifecycle.probe_delay(random.random()))

    def disconnect(self, host: Host) -> bool:
        """End the host's connection and forget its next attempt. False when it was not connected."""
        self._schedule.cancel(host.id)
        connected = host.connected
        greenlet = self._greenlets.get(host.id)
        if greenlet is not None:
            greenlet.kill(timeout=KILL_SECONDS)
            # A greenlet that is killed before its first step cannot clean up by itself; and it may have planned its
            # next attempt before the kill reached it.
            self._forget(host.id)
            self._schedule.cancel(host.id)
        return connected

    def next_attempt_in(self, host: Host) -> float | None:
        """Seconds until the host is dialled again; None when it is not planned."""
        due = self._schedule.due(host.id)
        return None if due is None else max(0.0, due - time.monotonic())

    def _dial_those_due(self) -> float:
        """One pass of the loop; the seconds until the next one."""
        now = time.monotonic()
        while len(self._dialling) < MAX_DIALS:
            host_id = self._schedule.pop(now, again=self._more_again)
            if host_id is None:
                break
            host = self._registry.by_id(host_id)
            if host is not None and host_id not in self._greenlets:
                self._dialling.add(host_id)
                if _went_wrong(host):
                    self._again.add(host_id)
                self._greenlets[host_id] = gevent.spawn(self._attend, host)
        due = self._schedule.next_due(again=self._more_again)
        if due is None or len(self._dialling) >= MAX_DIALS:
            # Ended early by `wake` when a host is planned, or a dial has ended.
            return LONGEST_SLEEP_SECONDS
        return min(max(due - time.monotonic(), 0.0), LONGEST_SLEEP_SECONDS)

    @property
    def _more_again(self) -> bool:
        return len(self._again) < MAX_DIALS_AGAIN

    def _attend(self, host: Host) -> None:
        """One host, from the dial to the end of its connection."""
        opened: float | None = None
        seen, position = host.events_seen, host.cursor.position
        try:
            from_the_start = self._from_the_start(host)
            cursor = self._cursor(host)
            stream = self._dial(host, cursor)
            host.go_live = False
            try:
                opened = time.monotonic()
                self._registry.connected(host)
                self._subscriber.read(host, stream, cursor, from_the_start=from_the_start)
            finally:
                stream.close()
                self._registry.disconnected(host)
        except StreamEnded as error:
            # Repetitions do not count.
            brought = host.events_seen > seen and (host.cursor.outstanding or host.cursor.position > position)
            lasted = 0.0 if opened is None else time.monotonic() - opened
            self._ended(host, error, lasted, brought_events=brought)
        except Exception as error:
            log.exception("the connection to %s crashed", host.hostname)
            self._ended(host, StreamEnded("internal-error", type(error).__name__), 0.0)
        finally:
            self._forget(host.id)

    def _forget(self, host_id: int) -> None:
        self._greenlets.pop(host_id, None)
        self._end_dial(host_id)

    def _end_dial(self, host_id: int) -> None:
        self._dialling.discard(host_id)
        self._again.discard(host_id)
        self._loop.wake()

    def _dial(self, host: Host, cursor: int | None) -> Connection:
        host.row.last_attempt_at = time.time()
        try:
            stream = self._subscriber.open(host, cursor)
        except StreamEnded as error:
            metrics.DIALS.labels(error.reason).inc()
            raise
        finally:
            self._end_dial(host.id)
        metrics.DIALS.labels("connected").inc()
        return stream

    def _cursor(self, host: Host) -> int | None:
        """Where to resume, or None to start live: as a host unseen for longer than the replay window does.

        Weeks of a dormant host's events would flood everyone, and are outside of what consumers can replay anyway.
        """
        position = host.cursor.position
        if host.go_live:
            return None
        if position == NONE_YET:
            return 0 if self._from_the_start(host) else host.ask_from
        if self._long_unseen(host) and not host.cursor.outstanding:
            log.debug("host %s was not seen for longer than the replay window: starting live", host.hostname)
            # The old position must not come back should the host have no event before its next reconnect.
            host.cursor.reset()
            host.cursor.note_gap("long-unseen")
            return None
        return position + host.skip

    def _from_the_start(self, host: Host) -> bool:
        """True when the few events that a host may have sent so far are wanted, if they are few."""
        if host.cursor.position != NONE_YET or host.go_live or host.ask_from is not None:
            return False
        # One that was connected, or asked to be crawled, and had sent nothing yet may have in between.
        return host.row.last_connected_at is not None

    def _long_unseen(self, host: Host) -> bool:
        if host.seen_at is not None:
            # The time of day may have been set since.
            return boot_seconds() - host.seen_at > self._replay_window
        seen = host.row.last_connected_at
        if seen is None:
            # Another relay's database does not say when it was; a host that it had given up is taken to be long gone.
            return host.row.status in (Status.IDLE, Status.OFFLINE)
        return time.time() - seen > self._replay_window

    def _let_clock_be_set(self) -> None:
        """Leave hosts alone for a minute that would start live because, by the clock, not one was seen for too long: it
        may be wrong at a boot, and their events would be lost.
        """
        away = time.time() - last_connected(host.row for host in self._registry)
        if away <= self._replay_window:
            return
        log.warning(
            "by the clock no host was seen for %.0f hours, longer than the replay window: "
            "they are dialled in a minute, in case it is being set",
            away / 3600,
        )
        for host in self._registry:
            if host.cursor.position != NONE_YET and self._long_unseen(host):
                host.left_alone_until = time.monotonic() + CLOCK_SECONDS

    def _ended(self, host: Host, error: StreamEnded, lasted: float, *, brought_events: bool = False) -> None:
        """Note why the connection ended, and plan the next one."""
        if lasted:
            metrics.CONNECTIONS_ENDED.labels(error.reason).inc()
        if error.reason == NO_DESCRIPTORS:
            # A fault of this machine, not of the host.
            self._plan(host, EXHAUSTED_SECONDS * (0.5 + random.random()))
            return
        host.note_error(str(error), time.time())
        if error.reason == "loop":
            self._registry.change(host, Cause.LOOP)
        elif error.reason == "future-cursor":
            self._cursor_refused(host, error, lasted, brought_events=brought_events)
        elif error.reason == "frames-unreadable":
            host.step_over(alone=False)
            # However long it stood: the host has to wait longer each time.
            self._failed(host, error, 0.0)
        else:
            if error.reason in MESSAGE_REASONS:
                host.step_over(alone=True)
            self._failed(host, error, lasted, brought_events=brought_events)

    def _cursor_refused(self, host: Host, error: StreamEnded, lasted: float, *, brought_events: bool) -> None:
        """The host says that the cursor is ahead of all that it has."""
        if host.skip:
            # There is nothing yet behind the messages that could not be read.
            host.skip = 0
            host.go_live = True
            self._plan(host, OUTSTANDING_SECONDS)
        elif host.cursor.outstanding:
            # Its last events are still on their way, by the old numbers.
            self._plan(host, OUTSTANDING_SECONDS)
        elif host.cursor.position != NONE_YET:
            # The host's numbers started again: what it has cannot be asked for by the old ones, but from its start.
            host.note_restart(time.time())
            host.cursor.reset()
            # It may say so after each event that it sends: then it waits longer each time, too.
            self._failed(host, error, lasted, brought_events=brought_events)
        elif not host.live_restart:
            host.live_restart = host.go_live = True
            self._failed(host, error, lasted, brought_events=brought_events)
        else:
            self._registry.change(host, Cause.FUTURE_CURSOR)
            self.probe_later(host)

    def _failed(self, host: Host, error: StreamEnded, lasted: float, *, brought_events: bool = False) -> None:
        host.left_alone_until = time.monotonic() + min(error.retry_after, lifecycle.LONGEST_DELAY_SECONDS)
        failures = lifecycle.failures_after(host.row.failures, lasted, brought_events=brought_events)
        if failures > 1 and self._registry.cut_off:
            failures = min(failures, max(host.row.failures, lifecycle.FAILURES_CUT_OFF))
        elif failures >= lifecycle.ATTEMPTS_BEFORE_OFFLINE:
            self._registry.change(host, Cause.ATTEMPTS_EXHAUSTED)
        host.row.failures = failures
        if host.status in (Status.IDLE, Status.OFFLINE):
            self.probe_later(host)
            return
        delay = lifecycle.retry_delay(host.row.failures, random.random())
        self._plan(host, delay)
        log.debug("host %s: %s; failure %d in a row", host.hostname, error, host.row.failures)

    def _plan(self, host: Host, delay: float) -> None:
        """Dial the host in `delay` seconds, but not while it asks to be left alone, and never while it is banned.

        Whoever plans may have waited since it looked at the host's status.
        """
        if host.status is Status.BANNED:
            return
        self._set(host, time.monotonic() + delay)

    def _set(self, host: Host, due: float) -> None:
        self._schedule.set(host.id, max(due, host.left_alone_until), again=_went_wrong(host))


def _went_wrong(host: Host) -> bool:
    """Whether the last attempt to connect to the host failed, and nobody has asked for it since."""
    row = host.row
    return row.failures > 0 and (row.last_attempt_at or 0.0) > (row.last_connected_at or 0.0)
