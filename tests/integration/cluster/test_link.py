"""A node's line to a NATS process that stands still."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from relay.cluster import link
from relay.cluster.link import Link, Retention
from relay.cluster.protocol import ClusterError
from tests.support.wait import until

pytest.importorskip("nats")


def answer(line: Link) -> str:
    """What the process says, which has no server to speak of."""
    with pytest.raises(ClusterError) as said:
        line.ends()
    return said.value.detail


def processes() -> list[int]:
    children = [
        int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    return [pid for pid in children if b"relay.cluster.nats_process" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_process_that_stands_still_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would keep a standby from ever following, and a node whose term is over from knowing that."""
    line = Link(("nats://127.0.0.1:1",), Retention(1, 1.0, 0))
    line.start()
    try:
        until(lambda: answer(line) == "not connected to NATS", 60)
        (first,) = processes()
        with monkeypatch.context() as patch:
            patch.setattr(link, "ANSWER_SECONDS", 0.5)
            os.kill(first, signal.SIGSTOP)
            until(lambda: answer(line) and first not in processes(), 60)
        until(lambda: answer(line) == "not connected to NATS", 60)
        assert "crashed" not in caplog.text
    finally:
        line.stop()
