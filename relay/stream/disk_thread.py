"""A native thread that writes the log or one file beside it, and for how long its disk has not answered.

Used by the group commit, the checkpoint and the decisions. Must not know what is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from gevent.threadpool import ThreadPool

from relay.kit.background import in_thread

# A disk that takes longer than this for a small file counts as broken.
HUNG_SECONDS = 10.0

P = ParamSpec("P")
T = TypeVar("T")


class DiskThread:
    """The thread of what is called `name`. Callers wait for each other; the disk counts as broken when one waits longer
    than `hung_after` seconds, HUNG_SECONDS for a small file.
    """

    def __init__(self, name: str, hung_after: float | None = None) -> None:
        self._name = name
        self._hung_after = HUNG_SECONDS if hung_after is None else hung_after
        self._pool = ThreadPool(1)
        # When the calls that are under way began, the oldest first.
        self._since: list[float] = []

    @property
    def problem(self) -> str | None:
        """That the disk does not answer, in words, or None."""
        waited = time.monotonic() - self._since[0] if self._since else 0.0
        return f"{self._name}: the disk has not answered for {waited:.0f} s" if waited > self._hung_after else None

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises. A caller that cannot wait as long as a disk hangs bounds the wait itself."""
        began = time.monotonic()
        self._since.append(began)
        try:
            return in_thread(self._pool, work, *args, **kwargs)
        finally:
            self._since.remove(began)
