"""Runs the relay so that it counts its objects when asked: `python -m tests.bench.soak.counted FILE serve …`.

On SIGUSR2 FILE is replaced by `{"blocks": N, "objects": N, "types": {NAME: N}}`: blocks of Python's own allocator, and
the objects that the garbage collector knows, but for those that were there when the relay froze them after its start.
On SIGUSR1 by `{"types": …}` of what a full collection finds, which the relay makes after 100 million objects: circles
that keep themselves alive. That ends them as well, so it is for the end of a run.
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
        types = _types(gc.get_objects())
        self._tell({"blocks": blocks, "objects": types.total(), "types": dict(types.most_common(TYPES))})

    def write_garbage(self, _signal: int, _frame: FrameType | None) -> None:
        # Young objects go as they always do, and are not counted.
        gc.collect(1)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        types = _types(gc.garbage)
        gc.garbage.clear()
        self._tell({"types": dict(types.most_common(TYPES))})

    def _tell(self, counts: dict[str, object]) -> None:
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(counts))
        partial.replace(self._path)


def _types(objects: list[object]) -> Counter[str]:
    return Counter(f"{type(found).__module__}.{type(found).__qualname__}" for found in objects)


def main() -> None:
    from relay.cli import main as relay_main

    path, sys.argv[1:] = Path(sys.argv[1]), sys.argv[2:]
    count = Count(path)
    for number, act in ((signal.SIGUSR2, count.write), (signal.SIGUSR1, count.write_garbage)):
        signal.signal(number, act)
        signal.siginterrupt(number, False)
    relay_main()


if __name__ == "__main__":
    main()
