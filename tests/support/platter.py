"""A disk of which power loss leaves what was synced, as the sync function of a `SegmentLog`.

room = Room(folder, url, sync=Platter(folder / "safe"))     # `safe` holds what the disk would after the power goes
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from relay.eventlog.high_water import NAME


class Platter:
    """What is safe on the disk: a copy of every file as of its last fdatasync."""

    def __init__(self, safe: Path) -> None:
        self.safe = safe
        safe.mkdir()

    def __call__(self, fd: int) -> None:
        os.fdatasync(fd)
        source = Path(os.readlink(f"/proc/self/fd/{fd}"))
        shutil.copy(source, self.safe / source.name)
        # The mark is synced by its own code, always before what it stands for.
        mark = source.parent / NAME
        if mark.exists():
            shutil.copy(mark, self.safe / NAME)
