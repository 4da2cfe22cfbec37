"""The worker processes of the process that runs the tests."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from relay.kit import metrics


def workers() -> list[int]:
    """The worker processes of this process."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        # A thread or a process may be gone by the time that it is looked at.
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in (task / "children").read_text().split():
                if running(int(child)) and b"worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def running(pid: int) -> bool:
    """Whether the process is there and not only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ready() -> float:
    (shown,) = metrics.VERIFIERS.collect()
    return shown.samples[0].value
