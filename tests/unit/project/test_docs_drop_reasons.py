"""`docs/drop-reasons.md` lists every reason for which the code can drop an event, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from relay.atproto import car, commit, drisl, frames, mst, mst_read, operations

ROOT = Path(__file__).parents[3]
# Statuses of the relay's own that an account can have; the gate drops with `account-` before them.
OWN_STATUSES = {"account-takendown", "account-host-throttled"}
# What `net.websocket` passes over in a host's stream.
PASSED_OVER = {"message-too-big", "text-message", "websocket-invalid"}


def documented() -> list[str]:
    text = (ROOT / "docs" / "drop-reasons.md").read_text()
    return re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)


def written_in(folder: str, pattern: str) -> set[str]:
    return {
        reason
        for path in (ROOT / "relay" / folder).glob("*.py")
        for reason in re.findall(pattern, path.read_text(), re.DOTALL)
    }


def test_every_reason_is_documented_once() -> None:
    modules = (car, commit, drisl, frames, mst, mst_read, operations)
    protocol = set().union(*(module.REASONS for module in modules))
    gate = written_in("ingest", r'Rejected\(\s*"([a-z-]+)"')
    gate |= written_in("ingest", r'Refusal\("([a-z-]+)"') | written_in("ingest", r'commit_alone\([^)]*"([a-z-]+)"')
    drops = written_in("ingest", r'_drop\(\w+, "([a-z-]+)"') | written_in("ingest", r'note\(host, "([a-z-]+)"')
    upstream = written_in("hosts", r'reject\([^)]*?"([a-z-]+)"') | PASSED_OVER
    identity = written_in("identity", r'IdentityError\("(did-[a-z-]+)"')
    found = documented()
    assert len(found) == len(set(found))
    assert set(found) == protocol | gate | drops | upstream | identity | OWN_STATUSES | {"account-did"}
