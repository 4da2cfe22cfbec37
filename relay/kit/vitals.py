"""How the process itself is doing: the hub's lag, greenlets, threads, garbage collection, memory, what is running.

Run by `app`, `edge` and `cluster`. Figures that a scrape can ask for itself are functions; the rest is measured by one
timer. Must not know of events, hosts or consumers.
"""

from __future__ import annotations

import gc
import platform
import time
from collections import deque
from importlib.metadata import version
from typing import Any
from weakref import WeakSet

import gevent
from gevent import Greenlet

from relay.kit import metrics
from relay.kit.allocator import FreeMemory, export_states
from relay.kit.own_process import process_status
from relay.kit.version import package_version, revision

TICK_SECONDS = 0.1
# Full collections that can fall between two ticks; more than that would be all that the process does.
PAUSES_KEPT = 64


class Vitals:
    """Measures from `start` to `stop`. Greenlets spawned before it is made are not counted.

    `mode` is a label of what runs here: "relay" or "edge".
    """

    def __init__(self, mode: str) -> None:
        self._greenlets: WeakSet[Greenlet[..., Any]] = WeakSet()
        self._pauses: deque[float] = deque(maxlen=PAUSES_KEPT)
        self._pause_began = 0.0
        # In the hub, without a greenlet that would have to be woken each time.
        self._heart = gevent.get_hub().loop.timer(TICK_SECONDS, TICK_SECONDS)
        self._due = 0.0
        Greenlet.add_spawn_callback(self._greenlets.add)
        metrics.GREENLETS.set_function(lambda: len(self._greenlets))
        metrics.THREADS.set_function(lambda: process_status("Threads"))
        metrics.MEMORY_PEAK.set_function(lambda: 1024 * process_status("VmHWM"))
        metrics.BUILD.info(
            {
                "mode": mode,
                "version": package_version(),
                "revision": revision(),
                "python": platform.python_version(),
                "gevent": version("gevent"),
                "libc": "-".join(platform.libc_ver()),
            }
        )
        export_states()
        self._free_memory = FreeMemory()

    def start(self) -> None:
        """Begin to measure."""
        gc.callbacks.append(self._time_collection)
        self._beat_later()
        self._free_memory.start()

    def stop(self) -> None:
        """Stop measuring."""
        self._free_memory.stop()
        self._heart.stop()
        if self._time_collection in gc.callbacks:
            gc.callbacks.remove(self._time_collection)
            Greenlet.remove_spawn_callback(self._greenlets.add)

    def _beat(self) -> None:
        metrics.HUB_LAG_SECONDS.observe(max(0.0, time.monotonic() - self._due))
        while self._pauses:
            metrics.GC_PAUSE_SECONDS.observe(self._pauses.popleft())
        self._beat_later()

    def _beat_later(self) -> None:
        self._due = time.monotonic() + TICK_SECONDS
        # From now on, and not from when the last beat should have been.
        self._heart.again(self._beat)

    def _time_collection(self, phase: str, info: dict[str, int]) -> None:
        """The collector's hook. Runs inside any allocation, so it must not take an instrument's lock."""
        if info["generation"] < 2:
            return
        if phase == "start":
            self._pause_began = time.monotonic()
        else:
            self._pauses.append(time.monotonic() - self._pause_began)
