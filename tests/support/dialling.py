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
    http = GuardedHttp("relay-test/1 (atproto-relay)", allow_insecure=allow_insecure)
    if certificate is not None:
        http.tls_context().load_verify_locations(certificate)
    return dial(http, parse_endpoint(pds.url), PATH, timing, gathering=gathering)
