"""Dials a fake host on loopback, as the relay does."""

from __future__ import annotations

from pathlib import Path

from relay.atproto.hostname import parse_endpoint
from relay.net.gathering import Gathering
from relay.net.http import GuardedHttp
from relay.net.websocket_client import PATH, dial
from relay.net.websocket_connection import Connection, Timing
from tests.support.pds import FakePds

QUICK = Timing(connect=0.5, dial=0.5, quiet=0.4, whole_frame=0.5)
PATIENT = Timing(quiet=5.0)


def connect(
    pds: FakePds,
    timing: Timing = PATIENT,
    certificate: Path | None = None,
    *,
    allow_insecure: bool = True,
    gathering: Gathering | None = None,
) -> Connection:
    """An open connection to `pds`, whose `certificate` is trusted. Raises StreamEnded."""
    network = GuardedHttp("test", allow_insecure=allow_insecure)
    tls = network.tls_context()
    if certificate is not None:
        tls.load_verify_locations(certificate)
    user_agent = "relay-test/1 (atproto-relay)"
    return dial(network, tls, parse_endpoint(pds.url), PATH, user_agent, timing, gathering=gathering)
