"""The backlog of a host that never comes to an end: each bound holds by itself."""

from __future__ import annotations

from typing import Any

import gevent
import pytest

from relay.hosts import backlog
from relay.net.websocket_reader import PassedOver


class Endless:
    """A connection on which a message of ten bytes comes every ten milliseconds."""

    def receive(self, patience: float | None = None) -> list[bytes | PassedOver]:
        gevent.sleep(0.01)
        return [b"ten bytes."]


@pytest.mark.parametrize(
    ("bound", "value", "most"),
    [("MAX_MESSAGES", 10, 21), ("MAX_BYTES", 150, 16), ("READ_SECONDS", 0.1, 11), ("PAUSE_SECONDS", 0.1, 11)],
)
def test_a_backlog_without_an_end(monkeypatch: pytest.MonkeyPatch, bound: str, value: float, most: int) -> None:
    for name in ("MAX_MESSAGES", "MAX_BYTES", "READ_SECONDS", "PAUSE_SECONDS"):
        monkeypatch.setattr(backlog, name, value if name == bound else 1 << 40)
    stream: Any = Endless()
    with gevent.Timeout(60):
        if bound != "PAUSE_SECONDS":
            held, end = backlog.read(stream)
            assert held and len(held) <= most and end is None
        if bound != "READ_SECONDS":
            held = [b"first"]
            assert not backlog.reaches(stream, held, [b"never comes"])
            assert len(held) <= most + 1
