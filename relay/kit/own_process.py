"""What Linux says of this process in /proc: the memory that it has, and its threads.

Read by `vitals` and `allocator`, and where memory is shown to people. Must not know what the memory was for.
"""

from __future__ import annotations

import os
from pathlib import Path

STATUS = Path("/proc/self/status")
STATM = Path("/proc/self/statm")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def process_status(field: str) -> float:
    """A number from Linux's /proc/self/status, in its unit (KiB for memory); 0 where there is no such file."""
    try:
        text = STATUS.read_text()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{field}:")), 0.0)


def resident_bytes() -> int:
    """The bytes of memory that the process has now."""
    return int(STATM.read_text().split()[1]) * PAGE_BYTES
