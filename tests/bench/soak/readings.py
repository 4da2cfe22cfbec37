"""What a relay consists of at one moment, as figures by name, and which of them grew.

Used by the soak. A reading costs the relay some 50 ms, once a minute. Names begin with what they are: `MiB`, `count`,
`rows`, `cache`, `objects`. Must not know what is done to the relay.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.http import call
from tests.support.relay_process import RelayProcess

MIB = 2**20
COUNT_SECONDS = 20.0
SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? ([0-9.e+-]+)$", re.MULTILINE)
ALLOCATOR = ("used", "free", "mapped")
COUNTS = {"greenlets": "relay_greenlets", "segments": "relay_log_segments", "consumers": "relay_consumers"}
# In bytes, or always full.
NOT_COUNTED = ("bytes", "dash-")


class Reading(NamedTuple):
    hours: float
    figures: dict[str, float]


def resident_mib(pid: int) -> float:
    """RSS of the process."""
    return _memory(pid)["VmRSS"]


def take(relay: RelayProcess, counts: Path, database: Path) -> Reading:
    """All figures of now. `counts` is the file that `counted` writes."""
    assert relay.child
    pid = relay.child.process.pid
    figures = {f"MiB {name}": size for name, size in _memory(pid).items()}
    figures |= _files(pid) | _metrics(relay) | _rows(database) | _objects(pid, counts)
    return Reading(time.monotonic() / 3600, figures)


def line(reading: Reading) -> str:
    """The figures that a person follows, in two lines."""
    at = reading.figures
    rows = ", ".join(f"{name[5:]} {count:,.0f}" for name, count in at.items() if name.startswith("rows ") and count)
    malloc = ", ".join(f"{at[f'MiB malloc {state}']:.1f} {state}" for state in ALLOCATOR)
    return (
        f"RSS {at['MiB VmRSS']:.1f} MiB (anonymous {at['MiB RssAnon']:.1f}; malloc {malloc}), "
        f"{at['count blocks']:,.0f} blocks, {at['count objects']:,.0f} objects, {at['count files']:.0f} files "
        f"({at['count open segments']:.0f} of the log, which has {at['count segments']:.0f}), "
        f"{at['count threads']:.0f} threads, {at['count greenlets']:,.0f} greenlets, "
        f"{at['count consumers']:.0f} consumers\n  rows: {rows}"
    )


def slope(points: list[tuple[float, float]]) -> float:
    """What the second number gains in one of the first."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope if len(points) > 1 else 0.0


def grown(readings: list[Reading], kind: str, at_least: float) -> list[str]:
    """Figures of one kind that rose by `at_least` an hour from the first reading to the last, the fastest first."""
    rises = {
        name: slope([(reading.hours, reading.figures.get(name, 0.0)) for reading in readings])
        for name in readings[-1].figures
        if name.startswith(f"{kind} ")
    }
    found = sorted((name for name, rise in rises.items() if rise >= at_least), key=lambda name: -rises[name])
    return [
        f"{name.removeprefix(f'{kind} ')} {rises[name]:+,.1f} an hour, now {readings[-1].figures[name]:,.1f}"
        for name in found
    ]


def _memory(pid: int) -> dict[str, float]:
    fields = dict(part.split(":", 1) for part in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(fields[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "RssFile")}


def _files(pid: int) -> dict[str, float]:
    targets: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets[str(descriptor.readlink())] += 1
        except FileNotFoundError:
            continue
    return {
        "count files": float(targets.total()),
        "count open segments": float(sum(n for name, n in targets.items() if "/persist/" in name)),
        "count threads": float(len(list(Path(f"/proc/{pid}/task").iterdir()))),
    }


def _metrics(relay: RelayProcess) -> dict[str, float]:
    samples = SAMPLE.findall(call(relay.metrics_url).body.decode())
    values = {(name, labels): float(value) for name, labels, value in samples}
    figures = {f"count {name}": values.get((metric, ""), 0.0) for name, metric in COUNTS.items()}
    for state in ALLOCATOR:
        figures[f"MiB malloc {state}"] = values.get(("relay_allocator_bytes", f'state="{state}"'), 0.0) / MIB
    for (name, labels), value in values.items():
        queue = labels.partition('"')[2].rstrip('"')
        if name == "relay_queue_size" and not any(part in queue for part in NOT_COUNTED):
            figures[f"cache {queue}"] = value
    return figures


def _rows(database: Path) -> dict[str, float]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    try:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {f"rows {name}": connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}
    finally:
        connection.close()


def garbage(pid: int, counts: Path) -> str:
    """Types of objects that only a full collection would have ended, the most frequent first. Ends them."""
    told = _asked(pid, signal.SIGUSR1, counts)
    if "types" not in told:
        return "not told"
    return ", ".join(f"{number} {name}" for name, number in told["types"].items()) or "none"


def _objects(pid: int, counts: Path) -> dict[str, float]:
    counted = _asked(pid, signal.SIGUSR2, counts)
    figures = {f"count {name}": float(counted.get(name, 0)) for name in ("blocks", "objects")}
    return figures | {f"objects {name}": float(number) for name, number in counted.get("types", {}).items()}


def _asked(pid: int, number: signal.Signals, counts: Path) -> dict[str, Any]:
    """What `counted` writes when it gets this signal; empty when it does not in time."""
    counts.unlink(missing_ok=True)
    os.kill(pid, number)
    until = time.monotonic() + COUNT_SECONDS
    while not counts.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return dict(json.loads(counts.read_text())) if counts.exists() else {}
