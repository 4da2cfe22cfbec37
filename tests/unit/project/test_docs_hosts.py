"""`docs/hosts.md` lists every reason for which a connection to a host ends, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from relay.net.websocket_connection import StreamEnded, stream_error

HOSTS = (Path(__file__).parents[3] / "docs" / "hosts.md").read_text(encoding="utf-8")
# Named in the texts of both classes beside reasons.
NO_REASONS = {"detail", "retry_after", "stream_error"}


def test_every_end_of_a_connection_is_documented_once() -> None:
    table = HOSTS.partition("<!-- ends -->")[2].partition("<!-- /ends -->")[0]
    documented = re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)
    told = set(re.findall(r"`([a-z_-]+)`", f"{StreamEnded.__doc__} {stream_error.__doc__}")) - NO_REASONS
    assert len(documented) == len(set(documented))
    assert set(documented) == told
