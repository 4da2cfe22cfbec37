"""A worker process for tests: `relay.ingest.worker`, but that a commit's own words may make it go wrong.

Blocks that contain `ODD_CRASH` end the process, `ODD_HANG` make it hang, `ODD_SLOW`, `ODD_NAP` and `ODD_LONG` take a
while up to a second, `ODD_SPIN` a tenth of a second of CPU and `ODD_LOOP` all that there is, `ODD_ANSWER` is answered
by nonsense, and `ODD_MEMORY` takes more memory than any event.
"""

from __future__ import annotations

import os
import time

from relay.atproto.commit import Unproven
from relay.atproto.crypto import PublicKey
from relay.atproto.frames import Commit, Sync
from relay.ingest import worker
from relay.ingest.verification import Refusal, Verdict


def verify(event: Commit | Sync, key: PublicKey) -> Verdict | Unproven | Refusal:
    if b"ODD_CRASH" in event.blocks:
        os._exit(77)
    if b"ODD_HANG" in event.blocks:
        time.sleep(600)
    if b"ODD_SLOW" in event.blocks:
        time.sleep(0.02)
    if b"ODD_NAP" in event.blocks:
        time.sleep(0.3)
    if b"ODD_LONG" in event.blocks:
        time.sleep(1.0)
    if b"ODD_SPIN" in event.blocks:
        spin(0.1)
    if b"ODD_LOOP" in event.blocks:
        spin(600)
    if b"ODD_MEMORY" in event.blocks:
        bytes(1 << 30)
    if b"ODD_ANSWER" in event.blocks:
        return ("neither", "nor", "anything")  # type: ignore[return-value]
    return worker.verify_now(event, key)


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


if __name__ == "__main__":
    worker.run(verify)
