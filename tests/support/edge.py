"""An edge as a process, and a consumer that keeps the bytes that come: those of relay and edge must be the same."""

from __future__ import annotations

from pathlib import Path

import gevent
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from relay.atproto import frames
from tests.support.relay_process import RelayProcess
from tests.support.websocket import connect


def edge_of(upstream: str, folder: Path, **settings: str) -> RelayProcess:
    """An edge behind `upstream`, not started yet."""
    mode = {"RELAY_MODE": "edge", "RELAY_EDGE_UPSTREAM": upstream, "RELAY_EDGE_BACKFILL": "true"}
    return RelayProcess(folder / "edge", {**mode, "RELAY_ALLOW_INSECURE_HOSTS": "false", **settings})


class Consumer:
    """Reads raw frames, and goes on after the newest seq when its connection ends."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.frames: list[bytes] = []
        self.seqs: list[int] = []
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        while True:
            try:
                with connect(f"{self.url}?cursor={self.seqs[-1] if self.seqs else 0}", max_size=None) as stream:
                    for message in stream:
                        assert isinstance(message, bytes)
                        self._take(message)
            except (OSError, InvalidHandshake, ConnectionClosed):
                pass
            gevent.sleep(0.05)

    def _take(self, message: bytes) -> None:
        event = frames.peek(message)
        if isinstance(event, frames.Peeked):
            self.frames.append(message)
            self.seqs.append(event.seq)

    def stop(self) -> None:
        self._greenlet.kill()
