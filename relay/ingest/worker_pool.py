"""The pool of worker processes that verify events, so that more than one core can.

Built by `app` when RELAY_VALIDATOR_PROCESSES and the cores ask for it; the gate begins checks here. An account's events
always go to the same process, which keeps its key parsed. Must not know of order: lanes keep it.
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

from relay.atproto.crypto import PublicKey
from relay.atproto.frames import Commit, Sync
from relay.ingest.verification import pack_task
from relay.ingest.worker_supervisor import BATCHES_OUTSTANDING, Check, WorkerSupervisor
from relay.kit import metrics

# Events that may be verified before their turn; those whose turn it is are bounded by the lanes and what is parked.
AHEAD_CAPACITY = 1024
HUNG_SECONDS = 10.0
WORKER = "relay.ingest.worker"
FAILURES_TOLD = 3
KILLS_TOLD = 5
MAX_PROCESSES = 2
# What a process on demand needs: a core for the relay, and one for itself.
CORES_ON_DEMAND = 2


def pool_for(processes: int | None, cores: int, *, lenient: bool) -> WorkerPool | None:
    """A pool of `processes`, or if that is None, of as many as `cores` are good for. None where that is none."""
    on_demand = False
    if processes is None:
        processes = processes_for(cores)
        if not processes and cores >= CORES_ON_DEMAND:
            processes, on_demand = 1, True
    return WorkerPool(processes, lenient=lenient, on_demand=on_demand) if processes else None


def processes_for(cores: int) -> int:
    """How many worker processes that are always there `cores` are good for.

    One core is the relay's own, another has the database, the reverse proxy and the kernel's network work to do: a
    worker's 26 MiB, and 20 us an event for the way there and back, are better saved. It verifies about as many events a
    second as the relay takes through all else, so with two of them the relay itself is the bound.
    """
    return min(max(cores - 2, 0), MAX_PROCESSES)


class WorkerPool:
    """A fixed number of worker processes, between `start` and `stop`. `worker` is the module that they run.

    `on_demand`: they are for backlogs only, and `relief` starts and stops them.
    """

    def __init__(
        self,
        processes: int,
        *,
        lenient: bool,
        on_demand: bool = False,
        worker: str = WORKER,
        hung_seconds: float = HUNG_SECONDS,
    ) -> None:
        self.on_demand = on_demand
        command = (worker, "lenient" if lenient else "strict")
        self._supervisors = [WorkerSupervisor(index, command, hung_seconds) for index in range(processes)]
        self._ahead_of_each = AHEAD_CAPACITY // processes
        metrics.VERIFIERS.set_function(lambda: sum(supervisor.ready for supervisor in self._supervisors))
        metrics.show_bound("verifier-events", lambda: sum(s.waiting for s in self._supervisors), AHEAD_CAPACITY)
        metrics.show_bound(
            "verifier-batches", lambda: sum(s.outstanding for s in self._supervisors), processes * BATCHES_OUTSTANDING
        )

    @property
    def problem(self) -> str | None:
        """What keeps events from being verified, or None."""
        failing = self._names(lambda one: one.failures >= FAILURES_TOLD)
        killed = self._names(lambda one: one.kills >= KILLS_TOLD)
        told = (("do not start", failing), ("are killed again and again", killed))
        return "; ".join(f"verifiers {what}: {names}" for what, names in told if names) or None

    @property
    def ready(self) -> bool:
        """Whether all processes are ready to verify."""
        return all(supervisor.ready for supervisor in self._supervisors)

    @property
    def idle(self) -> bool:
        """Whether each check that was begun has its outcome."""
        return not any(supervisor.waiting or supervisor.outstanding for supervisor in self._supervisors)

    @property
    def busy_seconds(self) -> float:
        """What verification has taken in all processes so far."""
        return sum(supervisor.busy_seconds for supervisor in self._supervisors)

    def start(self) -> None:
        """Start the processes; checks may be begun before they are ready."""
        for supervisor in self._supervisors:
            supervisor.start()

    def stop(self) -> None:
        """End the processes, and give back the checks that have no outcome. Until the next start none is begun."""
        for supervisor in self._supervisors:
            supervisor.stop()

    def begin(self, event: Commit | Sync, key: PublicKey) -> Check:
        """Have `event` verified against `key`. Never blocks."""
        return self._begin(self._supervisor_of(event), event, key)

    def ahead(self, event: Commit | Sync, key: PublicKey) -> Check | None:
        """`begin` for an event whose turn has not come; None when too many of those wait. Never blocks."""
        supervisor = self._supervisor_of(event)
        return self._begin(supervisor, event, key) if supervisor.waiting < self._ahead_of_each else None

    def _names(self, are: Callable[[WorkerSupervisor], bool]) -> str:
        return ", ".join(str(index) for index, one in enumerate(self._supervisors) if are(one))

    def _begin(self, supervisor: WorkerSupervisor, event: Commit | Sync, key: PublicKey) -> Check:
        check = Check(key, pack_task(event, key), len(event.blocks))
        supervisor.submit(check)
        return check

    def _supervisor_of(self, event: Commit | Sync) -> WorkerSupervisor:
        return self._supervisors[crc32(event.did.encode()) % len(self._supervisors)]
