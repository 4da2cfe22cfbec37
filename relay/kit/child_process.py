"""Starts and ends processes of the relay's own code, each with a socket to talk over (`messages`).

Used by what keeps a verifier or the NATS process running. Must not know what the process does.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from gevent import socket, subprocess

KILLED_WITHIN_SECONDS = 5.0

# Where `relay` is, for a process that is to run the same code and needs nothing else from our environment.
SOURCES = Path(__file__).parents[2]


def start(module: str, *arguments: str, **environment: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process that runs `module` with its end of a socket pair as the first argument, and our end. Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(theirs.fileno()), *arguments],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={"PYTHONPATH": str(SOURCES), **environment},
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process, and wait until it has a status."""
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILLED_WITHIN_SECONDS)
