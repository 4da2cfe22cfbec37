"""How many processor cores this process may use: those that it may run on, and no more than its control groups allow.

Used by `app`. A container or a unit of systemd (`CPUQuota=`) may have the time of one core on a machine of many. Must
not know what the cores are for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MEMBERSHIP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def usable_cores(membership: Path = MEMBERSHIP, groups: Path = GROUPS) -> int:
    """The number of whole cores, at least 1. `membership` lists the control groups of this process below `groups`."""
    quotas = [quota for folder in _folders(membership, groups) if (quota := _quota(folder)) is not None]
    return max(1, int(min([len(os.sched_getaffinity(0)), *quotas])))


def _folders(membership: Path, groups: Path) -> Iterator[Path]:
    """The folders of the groups that rule the CPU, each with those around it: of version 2, and of version 1."""
    try:
        lines = membership.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = groups / "cpu" if controllers else groups
        # In a container the path may be the one outside, of which only the last parts can be seen, or none.
        inner = PurePosixPath(path.lstrip("/"))
        yield from (root / part for part in (inner, *inner.parents) if ".." not in part.parts)


def _quota(folder: Path) -> float | None:
    """The cores' time that a group may use, or None when it has no limit of its own."""
    words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    try:
        quota, period = map(int, words)
    except ValueError:
        # "max", or no such file.
        return None
    return quota / period if quota > 0 and period > 0 else None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return []
