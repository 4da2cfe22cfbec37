"""CPU and memory of a process and its children, from /proc. All zero where there is no such process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

TICK = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    cpu_seconds: float
    rss_bytes: int
    peak_bytes: int

    def __sub__(self, earlier: Usage) -> Usage:
        """The CPU time since `earlier`, with the memory of now."""
        return self._replace(cpu_seconds=self.cpu_seconds - earlier.cpu_seconds)


def tree_usage(pid: int) -> Usage:
    """What `pid` and all processes below it use in sum."""
    usages = [usage for one in _tree(pid) if (usage := _usage(one))]
    return Usage(
        sum(one.cpu_seconds for one in usages),
        sum(one.rss_bytes for one in usages),
        sum(one.peak_bytes for one in usages),
    )


def process_usage(pid: int) -> Usage:
    """What `pid` alone uses."""
    return _usage(pid) or Usage(0.0, 0, 0)


def _tree(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir()) if pid else []
    except FileNotFoundError:
        return []
    children = [int(child) for task in tasks for child in _children(task)]
    return ([pid] if tasks else []) + [below for child in children for below in _tree(child)]


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _usage(pid: int) -> Usage | None:
    """None when the process has ended: a database server's come and go."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except (FileNotFoundError, ProcessLookupError):
        return None
    kib = {name: int(status[name].split()[0]) << 10 for name in ("VmRSS", "VmHWM") if name in status}
    return Usage((int(after_name[11]) + int(after_name[12])) / TICK, kib.get("VmRSS", 0), kib.get("VmHWM", 0))
