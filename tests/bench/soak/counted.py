"""Runs the relay so that it counts its objects when asked: `python -m tests.bench.soak.counted FILE serve …`.

On SIGUSR2 FILE is replaced by `{"blocks": N, "objects": N, "types": {NAME: N}}`: blocks of Python's own allocator, and
the objects that the garbage collector knows, but for those that were there when the relay froze them after its start.
"""

from __future__ import annotations

import gc
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

TYPES = 60


class Count:
    """What is written to `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, _signal: int, _frame: FrameType | None) -> None:
        blocks = sys.getallocatedblocks()
        types = Counter(f"{type(found).__module__}.{type(found).__qualname__}" for found in gc.get_objects())
        counts = {"blocks": blocks, "objects": types.total(), "types": dict(types.most_common(TYPES))}
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(counts))
        partial.replace(self._path)


def main() -> None:
    from relay.cli import main as relay_main

    path, sys.argv[1:] = Path(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGUSR2, Count(path).write)
    signal.siginterrupt(signal.SIGUSR2, False)
    relay_main()


if __name__ == "__main__":
    main()
