"""A worker process: verifies the batches that come over its socket, answers them in order, ends when the socket does.

Its supervisor starts it as `python -m relay.ingest.worker SOCKET LENIENT`. Nothing is patched here, and gevent, SQL
and metrics are not imported: what a crash takes along is this process and the batch in it. Its memory is bounded: what
needs more ends this process, before the kernel kills one for lack of it.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable

from relay.atproto.crypto import PublicKey
from relay.atproto.frames import Commit, Sync
from relay.ingest.verification import Outcome, pack_outcome, unpack_task, verify
from relay.kit.messages import Inbox, encode

READ_BYTES = 256 << 10
GC_THRESHOLDS = (50_000, 20, 100)
_PR_SET_PDEATHSIG = 1
# Far more than its keys and the largest events take.
MEMORY_BYTES = 512 << 20

Verify = Callable[[Commit | Sync, PublicKey], Outcome]


def serve(connection: socket.socket, verify_one: Verify) -> None:
    """Say hello, then answer batches until the relay closes the connection or is gone.

    An answer is the outcomes of a batch and the seconds that each took; the hello is one without any.
    """
    inbox = Inbox()
    connection.sendall(encode(([], [])))
    while data := connection.recv(READ_BYTES):
        for batch in inbox.feed(data):
            took, outcomes = [], []
            end = time.perf_counter()
            for task in batch:
                began = end
                outcomes.append(pack_outcome(verify_one(*unpack_task(task))))
                end = time.perf_counter()
                took.append(end - began)
            connection.sendall(encode((took, outcomes)))


def run(verify_one: Verify) -> None:
    """Serve on the socket that the command line names. The signals that stop the relay mean nothing here: it closes
    the socket once it has drained. Should it die, this dies with it, even when stuck or stopped.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _bound_memory()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        connection.setblocking(True)
        try:
            serve(connection, verify_one)
        except ConnectionError:
            # The relay is gone; there is nobody to tell.
            return


def _bound_memory() -> None:
    _, allowed = resource.getrlimit(resource.RLIMIT_DATA)
    bound = MEMORY_BYTES if allowed == resource.RLIM_INFINITY else min(MEMORY_BYTES, allowed)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))


def verify_now(event: Commit | Sync, key: PublicKey) -> Outcome:
    """`verify` by this machine's clock, as lenient as the command line says."""
    return verify(event, key, int(time.time() * 1_000_000), lenient=sys.argv[2] == "lenient")


if __name__ == "__main__":
    run(verify_now)
