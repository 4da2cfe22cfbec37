"""One event that is being verified elsewhere, and the greenlet that waits for what comes of it.

Made by the pool, settled by the slot that had it verified, waited for by a partition. Pure state.
"""

from __future__ import annotations

from gevent.hub import Waiter, get_hub

from relay.atproto.crypto import PublicKey
from relay.ingest.verdict import Outcome
from relay.ingest.verification import Task


class Check:
    """A verification of `size` bytes against `key`. `outcome` is None until it is there; `crashes` counts the
    processes that ended over it alone.
    """

    __slots__ = ("_waiter", "crashes", "key", "outcome", "size", "task")

    def __init__(self, key: PublicKey, task: Task, size: int) -> None:
        self.key = key
        self.task = task
        self.size = size
        self.crashes = 0
        self.outcome: Outcome | None = None
        self._waiter: Waiter[None] | None = None

    def settle(self, outcome: Outcome) -> None:
        """It is verified."""
        self.outcome = outcome
        if self._waiter is not None:
            get_hub().loop.run_callback(self._waiter.switch, None)

    def wait(self) -> None:
        """Block until there is an outcome, for one greenlet at a time.

        Without a timeout of its own: each event would pay for one, and the slot lets nothing go unanswered.
        """
        if self.outcome is None:
            self._waiter = Waiter()
            self._waiter.get()
            self._waiter = None
