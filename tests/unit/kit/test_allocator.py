"""Memory that was needed for a while is given back to the kernel, and only when it is worth while."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import gevent
import pytest

from relay.kit import allocator
from relay.kit.allocator import FreeMemory
from relay.kit.own_process import resident_bytes
from tests.support.tools import library

JEMALLOC = library("libjemalloc.so.2")
MEGABYTE = 1 << 20
# Says on stderr which arenas there are, once some threads have allocated at the same time.
ARENAS = """
import ctypes
from threading import Barrier, Thread
from relay.kit import allocator

if {configured}:
    allocator.configure()
together = Barrier(4)

def work():
    held = [bytes(2000) for _ in range(100)]
    together.wait(10)
    del held

threads = [Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
ctypes.CDLL(None).malloc_stats()
"""

# Says how many bytes stay when the large ones of blocks of two sizes have been freed.
LEFT = """
from relay.kit import allocator
from relay.kit.own_process import resident_bytes

if {configured}:
    allocator.configure()
before = resident_bytes()
blocks = [(bytes([1]) * 17_000, bytes([1]) * 600) for _ in range(1500)]
small = [neighbour for _, neighbour in blocks]
del blocks
print(resident_bytes() - before)
"""

# Says what jemalloc is said to hold before and after ten megabytes are taken.
TOLD = """
import json
from prometheus_client import REGISTRY
from relay.kit import allocator

allocator.configure()
allocator.export_states()

def told():
    return {state: REGISTRY.get_sample_value("relay_allocator_bytes", {"state": state}) for state in allocator.STATES}

before = told()
taken = [bytes(2000) for _ in range(5000)]
print(json.dumps([before, told(), allocator._malloc_trim is None]))
"""


@pytest.mark.skipif(allocator._malloc_trim is None, reason="another libc than glibc")
def test_what_many_consumers_needed_is_given_back() -> None:
    free_memory = FreeMemory()
    free_memory.look()
    # Small enough for the arenas, each with a neighbour that stays, as the objects of a relay that goes on do.
    chunks = [(bytes([1]) * 100_000, bytes(600)) for _ in range(2000)]
    full = resident_bytes()
    kept = [neighbour for _, neighbour in chunks]
    del chunks
    held = resident_bytes()
    free_memory.look()
    assert full - resident_bytes() > 150 * MEGABYTE, f"{(full - held) / MEGABYTE:.0f} MB went by themselves"
    assert len(kept) == 2000


@pytest.mark.skipif(allocator._malloc_trim is None, reason="another libc than glibc")
def test_little_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    free_memory = FreeMemory()
    free_memory.look()
    trims: list[int] = []
    monkeypatch.setattr(allocator, "_malloc_trim", trims.append)
    free_memory.look()
    gevent.sleep(0)
    assert trims == []


@pytest.mark.skipif(allocator._malloc_trim is None, reason="another libc than glibc")
def test_pieces_between_used_ones_are_given_back_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "WORTH_BYTES", 1 << 40)
    free_memory = FreeMemory()
    chunks = [(bytes([1]) * 20_000, bytes(600)) for _ in range(1500)]
    kept = [neighbour for _, neighbour in chunks]
    full = resident_bytes()
    del chunks
    # Some may go by themselves.
    held = resident_bytes()
    free_memory.look()
    assert held - resident_bytes() < MEGABYTE, "not at once"
    monkeypatch.setattr(allocator, "FIRST_PIECES_SECONDS", 0.0)
    later = FreeMemory()
    later.look()
    assert full - resident_bytes() > 15 * MEGABYTE
    trims: list[int] = []
    monkeypatch.setattr(allocator, "_malloc_trim", trims.append)
    later.look()
    assert trims == [], "after the first time it takes longer"
    later._pieces_due = 0.0
    later.look()
    assert trims == [0]
    assert later._pieces_due == pytest.approx(time.monotonic() + allocator.PIECES_SECONDS, abs=30)
    monkeypatch.setattr(allocator, "PIECES_SHARE", 1e-12)
    later._pieces_due = 0.0
    later.look()
    assert later._pieces_due > time.monotonic() + 2 * allocator.PIECES_SECONDS, "a long one is made less often"
    assert len(kept) == 1500


@pytest.mark.skipif(allocator._mallopt is None, reason="another libc than glibc")
@pytest.mark.parametrize("configured", [True, False])
def test_threads_allocate_in_one_arena(configured: bool) -> None:
    code = ARENAS.format(configured=configured)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stderr
    assert (told.count("Arena") == 1) is configured, told


@pytest.mark.skipif(allocator._mallopt is None, reason="another libc than glibc")
@pytest.mark.parametrize("configured", [True, False])
def test_large_blocks_leave_nothing_between_small_ones_that_stay(configured: bool) -> None:
    code = LEFT.format(configured=configured)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert (int(told) < 10 * MEGABYTE) is configured, told


@pytest.mark.skipif(JEMALLOC is None, reason="jemalloc is not there")
def test_of_jemalloc_there_are_metrics_and_its_memory_is_left_to_it() -> None:
    environment = os.environ | {"LD_PRELOAD": str(JEMALLOC), "MALLOC_CONF": "narenas:1"}
    done = subprocess.run(
        [sys.executable, "-c", TOLD], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    before, after, untrimmed = json.loads(done.stdout)
    assert untrimmed
    assert after["used"] - before["used"] > 9 * MEGABYTE
    assert after["arenas"] == pytest.approx(after["used"] + after["free"], abs=MEGABYTE)
    assert after["mapped"] is None
