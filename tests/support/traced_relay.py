"""`relay serve`, counting the calls of its functions between one SIGUSR1 and the next.

Started by `tests.bench.traced_commit` with the file to write to. Each signal adds a line there: empty when counting
begins, and when it ends, a JSON list of [file, function, calls]. Files are below `relay/`.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

RELAY = f"{Path(__file__).parents[2] / 'relay'}/"


class Tracer:
    """Counts while `counting`. It is called for every call of any function, from the start: greenlets keep what was set
    when they were made.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._counting = False
        self._calls: Counter[tuple[str, str]] = Counter()

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        if self._counting and event == "call" and frame.f_code.co_filename.startswith(RELAY):
            self._calls[frame.f_code.co_filename.removeprefix(RELAY), frame.f_code.co_qualname] += 1

    def toggle(self, *_: object) -> None:
        self._counting = not self._counting
        line = ""
        if self._counting:
            self._calls.clear()
        else:
            line = json.dumps([[*function, calls] for function, calls in self._calls.items()])
        with self._out.open("a") as out:
            out.write(f"{line}\n")

    def in_threads(self) -> None:
        """Count in native threads as well, which gevent starts without asking `threading`."""
        from unittest import mock

        from gevent.threadpool import ThreadPool

        apply: Any = ThreadPool.apply

        def traced(pool: ThreadPool, func: Callable[..., Any], args: Any = None, kwds: Any = None) -> Any:
            def run(*args: Any, **kwds: Any) -> Any:
                sys.setprofile(self.profile)
                try:
                    return func(*args, **kwds)
                finally:
                    sys.setprofile(None)

            return apply(pool, run, args, kwds)

        mock.patch.object(ThreadPool, "apply", traced).start()


def main(out: Path) -> None:
    """Run the relay."""
    tracer = Tracer(out)
    threading.setprofile(tracer.profile)
    sys.setprofile(tracer.profile)
    from relay.patched import patch

    patch()
    tracer.in_threads()
    signal.signal(signal.SIGUSR1, tracer.toggle)
    from relay import app

    sys.exit(app.main(None))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
