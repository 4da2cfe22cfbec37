"""One worker process and its work: the checks that wait for it, and what becomes of both when it fails.

Used by the worker pool; lanes wait for its checks. A process that ends or hangs is replaced and what it had is
verified again, so nothing is lost; the events that it may have died of go alone from then on, and one that alone ends
its process twice is refused. A process that somebody kills or stops, an operator or a machine short of memory or CPU,
counts against no event: what takes too much memory fails in the process itself (`worker`), and one that hangs is told
from one that gets no CPU (`worker_watch`). Must not know what a task says.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence

import gevent
from gevent import socket, subprocess
from gevent.event import Event as Signal
from gevent.hub import Waiter, get_hub

from relay.atproto.crypto import PublicKey
from relay.ingest.verification import Outcome, Refusal, Task, unpack_outcome
from relay.ingest.worker_watch import NotItsFault, Watch
from relay.kit import child_process, metrics
from relay.kit.messages import Inbox, encode

BATCH_EVENTS = 16
BATCH_BYTES = 256 << 10
BATCHES_OUTSTANDING = 2
# How long an event may wait for others to go with it: a crossing costs by the batch, and so does waking a process.
GATHER_SECONDS = 0.002
READ_BYTES = 64 << 10
CRASHES_ALLOWED = 1
# Once a process has owed an answer for as long as the pool allows, in parts of that time: the pause until it is looked
# at again, the CPU that it needs from then on to count as hung, and how long it is waited for if it does not get that.
LOOK_PART = 0.5
ENOUGH_PART = 0.25
STARVED_PARTS = 30
# How soon a process whose end of the socket is closed has a status.
ENDED_WITHIN_SECONDS = 1.0
RESTART_SECONDS = (0.0, 0.1, 0.5, 2.0, 5.0)
IDLE_SECONDS = 60.0

log = logging.getLogger(__name__)


class Check:
    """A verification of `size` bytes against `key`. `outcome` is None until it is there and took `took` seconds;
    `given_back`: it will never be there. `crashes` counts the processes that ended or hung over it alone.
    """

    __slots__ = ("_waiter", "crashes", "given_back", "key", "outcome", "size", "task", "took")

    def __init__(self, key: PublicKey, task: Task, size: int) -> None:
        self.key = key
        self.task = task
        self.size = size
        self.crashes = 0
        self.outcome: Outcome | None = None
        self.given_back = False
        self.took = 0.0
        self._waiter: Waiter[None] | None = None

    @classmethod
    def beside(cls, key: PublicKey) -> Check:
        """One that no process is asked for."""
        return cls(key, (), 0)

    def settle(self, outcome: Outcome, took: float = 0.0) -> None:
        """It is verified."""
        self.outcome = outcome
        self.took = took
        self._wake()

    def give_back(self) -> None:
        """No process verifies it: whoever waits has to see to it."""
        self.given_back = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            get_hub().loop.run_callback(self._waiter.switch, None)

    def wait(self) -> None:
        """Block until there is an outcome or it is given back, for one greenlet at a time.

        Without a timeout of its own: each event would pay for one, and the supervisor lets nothing go unanswered.
        """
        if self.outcome is None and not self.given_back:
            self._waiter = Waiter()
            self._waiter.get()
            self._waiter = None


# Why a process is replaced: the values of `relay_verifier_restarts_total`.
CAUSES = ("ended", "hung", "failed")


class WorkerSupervisor:
    """A worker process and its work, from `start` to `stop`, and again. `failures` counts the processes in a row that
    never got ready, `kills` those that somebody killed at work since the last answer; `busy_seconds` is what
    verification has taken in all.
    """

    def __init__(self, index: int, command: Sequence[str], hung_seconds: float) -> None:
        self.failures = 0
        self.kills = 0
        self.ready = False
        self.busy_seconds = 0.0
        self._index = index
        self._command = command
        self._hung_seconds = hung_seconds
        self._waiting: deque[Check] = deque()
        self._suspects: deque[Check] = deque()
        self._sent: deque[list[Check]] = deque()
        self._oldest_since = 0.0
        self._work = Signal()
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._busy = metrics.VERIFIER_BUSY_SECONDS.labels(str(index))
        # Shown as 0 from the start, so that Prometheus sees the first one as a rise.
        for cause in CAUSES:
            metrics.VERIFIER_RESTARTS.labels(cause)

    @property
    def waiting(self) -> int:
        """Events that are not yet sent to the process."""
        return len(self._waiting) + len(self._suspects)

    @property
    def outstanding(self) -> int:
        """Batches that the process has not answered."""
        return len(self._sent)

    def submit(self, check: Check) -> None:
        """Have `check` verified."""
        self._waiting.append(check)
        self._work.set()

    def start(self) -> None:
        """Start the process, and the next one whenever one ends."""
        self.failures = self.kills = 0
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """End the process, whatever it is doing, and give back what it had."""
        if self._greenlet is not None:
            self._greenlet.kill(timeout=2 * child_process.KILLED_WITHIN_SECONDS)
            self._greenlet = None
        for checks in (self._suspects, self._waiting):
            while checks:
                checks.popleft().give_back()

    def _run(self) -> None:
        while True:
            try:
                cause = self._run_process()
            except Exception:
                log.exception("supervising verifier %d crashed", self._index)
                cause = "failed"
            if cause == "failed":
                self.failures += 1
            metrics.VERIFIER_RESTARTS.labels(cause).inc()
            gevent.sleep(RESTART_SECONDS[min(max(self.failures, self.kills), len(RESTART_SECONDS) - 1)])

    def _run_process(self) -> str:
        """One process from its start to its end, and why it ended: a cause of `relay_verifier_restarts_total`."""
        sender: gevent.Greenlet[..., None] | None = None
        process, connection = child_process.start(*self._command)
        cause, blamed = "ended", True
        try:
            for took, outcomes in self._answers(connection, self._watch(process.pid)):
                if sender is None:
                    self.ready = True
                    self.failures = 0
                    sender = gevent.spawn(self._send, connection)
                    continue
                seconds = sum(took)
                self.busy_seconds += seconds
                self._busy.inc(seconds)
                self._settle(took, outcomes)
            blamed = not _was_killed(process)
        except NotItsFault:
            cause, blamed = "hung", False
        except TimeoutError:
            cause = "hung"
        except gevent.GreenletExit:
            blamed = False
            raise
        finally:
            started, self.ready = self.ready, False
            if sender is not None:
                sender.kill()
            connection.close()
            child_process.end(process)
            self._take_back(blamed=blamed)
        log.error("verifier %d (process %d) %s with status %s", self._index, process.pid, cause, process.returncode)
        return cause if started else "failed"

    def _answers(
        self, connection: socket.socket, watch: Watch
    ) -> Iterator[tuple[list[float], list[tuple[object, ...]]]]:
        """What the process sends until it ends. Raises as `Watch.look` when it owes an answer for too long."""
        inbox = Inbox()
        connection.settimeout(self._hung_seconds)
        while True:
            try:
                data = connection.recv(READ_BYTES)
            except TimeoutError:
                if not self._owes(connection):
                    watch.forget()
                    continue
                watch.look()
                connection.settimeout(LOOK_PART * self._hung_seconds)
                continue
            except OSError:
                return
            if not data:
                return
            yield from inbox.feed(data)

    def _watch(self, pid: int) -> Watch:
        return Watch(pid, ENOUGH_PART * self._hung_seconds, STARVED_PARTS * self._hung_seconds)

    def _owes(self, connection: socket.socket) -> bool:
        """Whether an answer has been due for too long."""
        if self.ready and (not self._sent or time.monotonic() - self._oldest_since < self._hung_seconds):
            return False
        # The relay itself may have stood still; then the answer is there by now.
        connection.settimeout(0)
        try:
            return not connection.recv(1, socket.MSG_PEEK)
        except OSError:
            return True
        finally:
            connection.settimeout(self._hung_seconds)

    def _send(self, connection: socket.socket) -> None:
        """Keep the process in work: while it has one batch in hand, the next one waits in its socket."""
        try:
            while True:
                while len(self._sent) >= BATCHES_OUTSTANDING or not self.waiting:
                    self._work.clear()
                    self._work.wait(IDLE_SECONDS)
                if self.waiting < BATCH_EVENTS:
                    gevent.sleep(GATHER_SECONDS)
                batch = self._next_batch()
                if not self._sent:
                    self._oldest_since = time.monotonic()
                self._sent.append(batch)
                connection.sendall(encode([check.task for check in batch]))
        except OSError:
            # The process is gone, or hangs: `_answers` finds out which.
            return
        finally:
            # Whatever ended this ends the process, or its events would wait for ever.
            connection.close()

    def _next_batch(self) -> list[Check]:
        if self._suspects:
            return [self._suspects.popleft()]
        batch: list[Check] = []
        size = 0
        while self._waiting and len(batch) < BATCH_EVENTS and size < BATCH_BYTES:
            check = self._waiting.popleft()
            batch.append(check)
            size += check.size
        return batch

    def _settle(self, took: list[float], outcomes: list[tuple[object, ...]]) -> None:
        for check, seconds, outcome in zip(self._sent[0], took, outcomes, strict=True):
            check.settle(unpack_outcome(outcome), seconds)
        self.kills = 0
        # Only now: an answer that cannot be read leaves the batch to be taken back.
        self._sent.popleft()
        self._oldest_since = time.monotonic()
        self._work.set()

    def _take_back(self, *, blamed: bool) -> None:
        """Put what the process had into the queue again. It answers in order, so it ended or hung over its oldest
        batch, which is `blamed` for that unless somebody killed the process.
        """
        if not self._sent:
            return
        suspects = self._sent.popleft()
        while self._sent:
            self._waiting.extendleft(reversed(self._sent.pop()))
        if not blamed:
            self.kills += 1
        # Only a batch of one tells which event it was; and once may be anything.
        elif len(suspects) == 1 and _is_poison(suspects[0]):
            return
        self._suspects.extend(suspects)


def _is_poison(check: Check) -> bool:
    """Count a process that ended or hung over `check` alone. True when that were too many, and it is refused."""
    check.crashes += 1
    if check.crashes <= CRASHES_ALLOWED:
        return False
    check.settle(Refusal("poison", f"ended or hung {check.crashes} verifiers"))
    return True


def _was_killed(process: subprocess.Popen[bytes]) -> bool:
    """Whether somebody has killed `process`, whose connection has ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(ENDED_WITHIN_SECONDS)
    return process.returncode == -signal.SIGKILL
