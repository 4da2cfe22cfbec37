"""`python -m tests.support.stuck_disk FILE`: `relay serve` on a disk that answers no sync as long as FILE is there."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STUCK = Path(sys.argv.pop())
# As it was before the relay had it patched: nobody else may have a turn meanwhile.
pause = time.sleep


def answering_late(sync: Callable[[Any], None]) -> Callable[[Any], None]:
    """`sync` on such a disk."""

    def late(fd: Any) -> None:
        while STUCK.exists():
            pause(0.05)
        sync(fd)

    return late


os.fsync = answering_late(os.fsync)  # type: ignore[assignment]
os.fdatasync = answering_late(os.fdatasync)  # type: ignore[assignment]

from relay.cli import main  # noqa: E402 - the log takes the function that it finds

main(["serve"])
