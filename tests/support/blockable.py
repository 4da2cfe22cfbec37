"""`relay serve` with a hub that can be blocked: on SIGUSR1 it does nothing else for BLOCK_SECONDS.

BLOCK_SECONDS=6 python -m tests.support.blockable
"""

from relay.patched import patch

patch()

import os  # noqa: E402
import signal  # noqa: E402
import time  # noqa: E402

from relay.commands.serve import serve  # noqa: E402


def block(*_: object) -> None:
    """Run Python code without a switch: what holds the hub up, and the interpreter's lock as well."""
    until = time.monotonic() + float(os.environ["BLOCK_SECONDS"])
    while time.monotonic() < until:
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, block)
    serve()
