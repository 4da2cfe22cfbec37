"""Tells a worker process that hangs over its work from one that gets no CPU, or that somebody has stopped.

Asked by its supervisor once the process owes an answer for too long, and never before. On a machine that is short of
CPU, or that stood still, a process may take any time for an event, which is then not to blame. Must not know
what the process does.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")


class Look(NamedTuple):
    """A process at a moment: what the kernel calls its state, and the seconds of CPU that it has taken."""

    state: str
    cpu: float
    at: float


class NotItsFault(TimeoutError):
    """The process does not answer, and what it works on is not the cause."""


class Watch:
    """The looks at the process `pid` while it owes an answer for too long.

    From the first of them on, `enough` is the CPU with which it should have answered, and `longest` how long it may
    wait for that; both in seconds.
    """

    def __init__(self, pid: int, enough: float, longest: float) -> None:
        self._pid = pid
        self._enough = enough
        self._longest = longest
        self._first: Look | None = None

    def forget(self) -> None:
        """It has answered, or owes nothing."""
        self._first = None

    def look(self) -> None:
        """Look once more. Raises TimeoutError when the process hangs, and NotItsFault when it was stopped or gets no
        CPU. Otherwise it is worth waiting, and looking again.
        """
        now = look(self._pid)
        if self._first is None:
            self._first = now
            return
        if now.state in "Tt":
            raise NotItsFault("stopped")
        # One that sleeps wants no CPU: it waits for what will never come.
        if now.cpu - self._first.cpu >= self._enough or now.state not in "RD":
            raise TimeoutError("hung")
        if now.at - self._first.at >= self._longest:
            raise NotItsFault("no CPU")


def look(pid: int) -> Look:
    """The process `pid` now; of one that is gone the state is X."""
    now = time.monotonic()
    try:
        # After the name, which may hold any character: the state comes first, user and system ticks 12th and 13th.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return Look("X", 0.0, now)
    return Look(fields[0], (int(fields[11]) + int(fields[12])) / _TICKS, now)
