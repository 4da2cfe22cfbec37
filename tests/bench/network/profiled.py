"""Runs the relay with a sampling profiler around it: `python -m tests.bench.network.profiled OUTPUT serve …`.

A CPU-time signal samples the main thread's Python stack, weighted by the CPU time that this thread used since the last
sample. A greenlet switch is invisible to it, as it should be; deterministic profilers mix up greenlets' stacks. At the
end OUTPUT gets, as shares of the main thread's CPU time, modules and functions by their own time, and functions with
what they call.
"""

from __future__ import annotations

import heapq
import signal
import sys
import time
from collections import defaultdict
from operator import itemgetter
from pathlib import Path
from types import FrameType

INTERVAL = 0.002
ROWS = 40


class Sampler:
    """Counts of CPU seconds by function, alone and with what it calls, and by module."""

    def __init__(self) -> None:
        self.own: defaultdict[str, float] = defaultdict(float)
        self.with_callees: defaultdict[str, float] = defaultdict(float)
        self.modules: defaultdict[str, float] = defaultdict(float)
        self.used = time.thread_time()

    def start(self) -> None:
        signal.signal(signal.SIGPROF, self._sample)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)

    def stop(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)

    def _sample(self, _: int, frame: FrameType | None) -> None:
        weight = time.thread_time() - self.used
        self.used += weight
        names = []
        while frame is not None:
            module = frame.f_globals.get("__name__", "?")
            names.append(f"{module}:{frame.f_code.co_qualname}")
            frame = frame.f_back
        if names:
            self.own[names[0]] += weight
            self.modules[names[0].split(":")[0]] += weight
            for name in set(names):
                self.with_callees[name] += weight

    def write(self, path: Path) -> None:
        total = sum(self.own.values()) or 1.0
        lines = [f"{total:.2f} s of CPU in the main thread\n"]
        for title, counts in (
            ("modules, own time", self.modules),
            ("functions, own time", self.own),
            ("functions, with what they call", self.with_callees),
        ):
            lines.append(f"\n{title}\n")
            lines += [
                f"{count / total:7.1%}  {name}\n"
                for name, count in heapq.nlargest(ROWS, counts.items(), key=itemgetter(1))
            ]
        path.write_text("".join(lines))


def main() -> None:
    from relay.cli import main as relay_main

    output, sys.argv[1:] = Path(sys.argv[1]), sys.argv[2:]
    sampler = Sampler()
    sampler.start()
    try:
        relay_main()
    finally:
        sampler.stop()
        sampler.write(output)


if __name__ == "__main__":
    main()
