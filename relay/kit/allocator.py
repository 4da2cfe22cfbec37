"""glibc's allocator: configures it, shows what it holds, and gives back what it has kept free for long.

`app` configures it, `vitals` runs the rest. Memory that many consumers needed at once stays in the allocator when they
have left, and counts as the relay's. jemalloc, where it is preloaded, gives back by itself, and is only measured. Does
nothing with another libc. Must not know what the memory was for.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from gevent.threadpool import ThreadPool

from relay.kit import metrics
from relay.kit.background import Loop, in_thread
from relay.kit.own_process import resident_bytes

LOOK_SECONDS = 30.0
# Given back at once when this much is free and the process has grown by this much since the last time: less is not
# worth the pause.
WORTH_BYTES = 16 << 20
# Free pieces between used ones add up for hours: this much is given back when the last time is this long ago. Most
# of them come from the start, when thousands of hosts are connected and send what they have. Whoever allocates waits
# meanwhile, 0.2 ms for a free megabyte: for this share of the time at most.
PIECES_BYTES = 8 << 20
PIECES_SECONDS = 120.0
PIECES_SHARE = 1e-4
FIRST_PIECES_SECONDS = 50.0
# The parameters of `mallopt` in glibc's malloc.h: `M_MMAP_THRESHOLD`, `M_MMAP_MAX`, `M_ARENA_MAX`.
MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -3, -4, -8
# OpenSSL has a buffer of 16.4 KB for each read, and a host that connects has one until it has shaken hands.
MAPPED_FROM_BYTES = 16 << 10
# A quarter of what the kernel lets a process map (`vm.max_map_count`): stacks of greenlets need maps too.
MAPPED_BLOCKS = 16_384

log = logging.getLogger(__name__)


class _Mallinfo2(ctypes.Structure):
    """glibc's `struct mallinfo2` (malloc.h)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


# The label of `relay_allocator_bytes`, and where glibc says it.
STATES = {"arenas": "arena", "mapped": "hblkhd", "used": "uordblks", "free": "fordblks", "top": "keepcost"}
# What jemalloc says: the statistics of its mallctl(3), of which the second is taken from the first.
JEMALLOC_STATES = {
    "arenas": (b"stats.resident", None),
    "used": (b"stats.allocated", None),
    "free": (b"stats.resident", b"stats.allocated"),
}


def _function(name: str, result: Any) -> Callable[..., Any] | None:
    try:
        found = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
    found.restype = result
    return found  # type: ignore[no-any-return]


_mallctl = _function("mallctl", ctypes.c_int)
# glibc's are there beside jemalloc, and say nothing of it.
_mallinfo2 = _function("mallinfo2", _Mallinfo2) if _mallctl is None else None
_malloc_trim = _function("malloc_trim", ctypes.c_int) if _mallctl is None else None
_mallopt = _function("mallopt", ctypes.c_int) if _mallctl is None else None


def configure() -> None:
    """Let threads to come allocate where the first one does, and large blocks be maps of their own.

    Each thread would get an arena, and what it frees there is of no use to the others. They rarely run at the same
    time, so they do not wait for each other. A map goes back to the kernel when it is freed; a large piece of the arena
    stays, and small blocks that outlive what it was for part it.
    """
    if _mallopt is not None:
        _mallopt(ARENA_MAX, 1)
        _mallopt(MMAP_THRESHOLD, MAPPED_FROM_BYTES)
        _mallopt(MMAP_MAX, MAPPED_BLOCKS)


def export_states() -> None:
    """Show what the allocator holds."""
    if _mallctl is not None:
        for state, (name, less) in JEMALLOC_STATES.items():
            metrics.ALLOCATOR_BYTES.labels(state).set_function(partial(_jemalloc_bytes, name, less))
    if _mallinfo2 is None:
        return
    mallinfo2 = _mallinfo2

    def reading(field: str) -> Callable[[], float]:
        return lambda: float(getattr(mallinfo2(), field))

    for state, field in STATES.items():
        metrics.ALLOCATOR_BYTES.labels(state).set_function(reading(field))


def _jemalloc_bytes(name: bytes, less: bytes | None) -> float:
    assert _mallctl is not None
    # Statistics are those of the newest epoch.
    epoch = ctypes.c_uint64(1)
    _mallctl(b"epoch", None, None, ctypes.byref(epoch), ctypes.c_size_t(ctypes.sizeof(epoch)))
    found, size = ctypes.c_size_t(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_size_t))
    _mallctl(name, ctypes.byref(found), ctypes.byref(size), None, ctypes.c_size_t(0))
    return float(found.value) - (_jemalloc_bytes(less, None) if less else 0.0)


class FreeMemory:
    """Gives free memory back to the kernel, from a thread of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPool(1)
        # The least that the process had since the last time.
        self._resident = 0
        self._pieces_due = time.monotonic() + FIRST_PIECES_SECONDS
        self._loop = Loop("giving memory back", self.look, LOOK_SECONDS)

    def start(self) -> None:
        """Begin to look every now and then."""
        if _mallinfo2 is not None and _malloc_trim is not None:
            self._loop.start(after=LOOK_SECONDS)

    def stop(self) -> None:
        """Look no more."""
        self._loop.stop()

    def look(self) -> None:
        """Give back what is free, if it is worth while."""
        in_thread(self._pool, self._look)

    def _look(self) -> None:
        assert _mallinfo2 is not None and _malloc_trim is not None
        resident, free, now = resident_bytes(), _mallinfo2().fordblks, time.monotonic()
        self._resident = min(self._resident, resident)
        much = free >= WORTH_BYTES and resident - self._resident >= WORTH_BYTES
        if not much and (free < PIECES_BYTES or now < self._pieces_due):
            return
        _malloc_trim(0)
        took = time.monotonic() - now
        self._resident = resident_bytes()
        self._pieces_due = now + max(PIECES_SECONDS, took / PIECES_SHARE)
        log.debug("gave back %d MB", (resident - self._resident) >> 20)
