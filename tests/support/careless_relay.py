"""Our relay with a fault put in, by name: `python careless_relay.py FAULT`. For tests of what has to find it."""

from __future__ import annotations

import os
import sys

from relay.atproto import events
from relay.atproto.crypto import PublicKey
from relay.cli import main

FAULT = sys.argv.pop()


def takes_any_signature(_key: PublicKey, _message: bytes, _signature: bytes) -> bool:
    return True


def ends_at_an_odd_status(active: bool, status: str | None, host_status: object = events.host_status) -> str:
    if status == "hibernating":
        os._exit(70)
    assert callable(host_status)
    return str(host_status(active, status))


if FAULT == "signatures":
    PublicKey.verify = takes_any_signature  # type: ignore[method-assign,assignment]
else:
    assert FAULT == "ends"
    events.host_status = ends_at_an_odd_status

main(["serve"])
