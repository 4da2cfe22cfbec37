"""A node's line to NATS: starts the process that speaks it, asks it for things, and starts another when it ends.

Every call ends in time. Must not know what the messages are.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, NamedTuple

import gevent
from gevent import socket
from gevent.event import AsyncResult
from gevent.event import Event as Signal
from gevent.lock import BoundedSemaphore

from relay.cluster import wire
from relay.cluster.protocol import ClusterError
from relay.kit import child_process, metrics
from relay.kit.messages import Inbox, encode

READ_BYTES = 256 << 10
# The process gives its own answer before: one that twice gives none stands still, and another takes its place.
ANSWER_SECONDS = 4.0
MAX_SILENCES = 2
RESTART_SECONDS = 0.5
# Requests at a time: one appends, one reads, and an operator's.
MAX_ASKED = 64

log = logging.getLogger(__name__)


class Retention(NamedTuple):
    """What the stream keeps when it is made: copies, seconds, bytes (0: no bound)."""

    replicas: int
    seconds: float
    bytes: int


class Link:
    """The line. `server` is the NATS server, empty while there is none; `tip` is set when there may be a message."""

    def __init__(self, urls: tuple[str, ...], retention: Retention) -> None:
        self.server = ""
        self.tip = Signal()
        self._urls = urls
        self._arguments = [*map(str, retention)]
        self._asked: dict[int, AsyncResult[tuple[Any, ...]]] = {}
        self._number = 0
        self._silences = 0
        self._connection: socket.socket | None = None
        self._turn = BoundedSemaphore()
        self._greenlet: gevent.Greenlet[[], None] | None = None
        metrics.CLUSTER_CONNECTED.set_function(lambda: float(bool(self.server)))
        metrics.show_bound("cluster-requests", lambda: len(self._asked), MAX_ASKED)

    def start(self) -> None:
        """Start the process, and the next one whenever one ends."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """End it."""
        if self._greenlet is not None:
            self._greenlet.kill(timeout=2 * child_process.KILLED_WITHIN_SECONDS)

    def append(self, last: int, data: bytes) -> int | None:
        """The place of `data`, appended behind `last`; None when something else is there. Raises ClusterError."""
        what, *rest = self._ask(wire.APPEND, last, data)
        return int(rest[0]) if what == wire.APPENDED else None

    def get(self, place: int) -> bytes | None:
        """The message at `place`, None when there is none. Raises ClusterError `cluster-away`."""
        what, *rest = self._ask(wire.GET, place)
        return bytes(rest[0]) if what == wire.FOUND else None

    def ends(self) -> tuple[int, int]:
        """The places of the first and the last message; the first is above the last in an empty stream.

        Raises ClusterError `cluster-away`.
        """
        _, first, last = self._ask(wire.ENDS)
        return max(int(first), 1), int(last)

    def tell(self, place: int) -> None:
        """Have the others look at `place`; if that goes wrong they look by themselves."""
        self._send(0, wire.TIP, place)

    def _ask(self, *request: Any) -> tuple[Any, ...]:
        if len(self._asked) >= MAX_ASKED:
            raise ClusterError("cluster-away", "too many requests")
        self._number += 1
        number = self._number
        answer: AsyncResult[tuple[Any, ...]] = AsyncResult()
        self._asked[number] = answer
        try:
            self._send(number, *request)
            result = answer.get(timeout=ANSWER_SECONDS)
        except gevent.Timeout:
            self._note_silence()
            raise ClusterError("cluster-away", "no answer in time") from None
        finally:
            del self._asked[number]
        if result is None or result[0] == wire.AWAY:
            raise ClusterError("cluster-away", str(result[1])[:200] if result else "no answer")
        return result

    def _note_silence(self) -> None:
        self._silences += 1
        if self._silences >= MAX_SILENCES and self._connection is not None:
            log.error("the NATS process does not answer: another one is started")
            _shut_down(self._connection)

    def _send(self, number: int, *request: Any) -> None:
        connection = self._connection
        if connection is None:
            raise ClusterError("cluster-away", "the NATS process is not running")
        try:
            # One message after the other: what is half sent makes the rest unreadable.
            with gevent.Timeout(ANSWER_SECONDS, OSError("the NATS process takes nothing")), self._turn:
                _send_whole(connection, encode((number, *request)))
        except OSError as error:
            _shut_down(connection)
            raise ClusterError("cluster-away", str(error)) from None

    def _run(self) -> None:
        while True:
            try:
                self._run_process()
            except Exception:
                log.exception("the NATS process crashed")
            gevent.sleep(RESTART_SECONDS)

    def _run_process(self) -> None:
        process, connection = child_process.start(
            "relay.cluster.nats_process", *self._arguments, RELAY_CLUSTER=",".join(self._urls)
        )
        # It takes a while until it can answer.
        self._connection, self._silences = connection, -MAX_SILENCES
        try:
            inbox = Inbox()
            while data := connection.recv(READ_BYTES):
                for number, *result in inbox.feed(data):
                    self._take(number, tuple(result))
        except OSError:
            # `_note_silence` or `_send` shut the connection down.
            pass
        finally:
            self._connection, self.server = None, ""
            for answer in self._asked.values():
                answer.set((wire.AWAY, "the NATS process has ended"))
            connection.close()
            child_process.end(process)
        log.error("the NATS process %d ended with status %s", process.pid, process.returncode)

    def _take(self, number: int, result: tuple[Any, ...]) -> None:
        self._silences = 0
        if number:
            answer = self._asked.get(number)
            if answer is not None:
                answer.set(result)
        elif result[0] == wire.TIP:
            self.tip.set()
        elif result[0] == wire.CONNECTED:
            self.server = result[1]
            log.info("connected to NATS at %s", self.server)
        else:
            self.server = ""
            log.warning("the connection to NATS is cut")


def _send_whole(connection: socket.socket, data: bytes) -> None:
    """Send all of it. When that is broken off, in whatever way, nothing more can follow on this connection."""
    try:
        connection.sendall(data)
    except BaseException:
        _shut_down(connection)
        raise


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
