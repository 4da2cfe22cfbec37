"""Three relays of one cluster as processes, with NATS and PostgreSQL, tended as a process manager would; and a consumer
that goes from node to node.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from urllib.error import URLError

import gevent

from relay.atproto import frames
from relay.atproto.frames import Commit
from relay.atproto.hostname import parse_endpoint
from relay.net.http import SERVER, GuardedHttp
from relay.net.websocket_client import PATH, dial
from relay.net.websocket_connection import StreamEnded, Timing
from tests.support.relay_process import RelayProcess


class Cluster:
    """The nodes, by number. A node that ends by itself is started again until the test ends it."""

    def __init__(self, folder: Path, nats: Sequence[Sequence[str]], databases: Sequence[str], plc: str) -> None:
        """`nats` are the servers that each node is given, `databases` the address at which each has the database."""
        self.nodes = [
            RelayProcess(
                folder / f"node{number}",
                {
                    "RELAY_CLUSTER": ",".join(urls),
                    "RELAY_CLUSTER_NODE": f"node{number}",
                    "DATABASE_URL": database,
                    "RELAY_PLC_HOST": plc,
                    "RELAY_VALIDATOR_PROCESSES": "0",
                    "MAX_DB_CONNECTIONS": "4",
                },
            )
            for number, (urls, database) in enumerate(zip(nats, databases, strict=True))
        ]
        self._wanted = [False] * len(self.nodes)
        self._tending = gevent.spawn(self._tend)

    def start(self, number: int, timeout: float = 90) -> None:
        self.nodes[number].start(timeout)
        self._wanted[number] = True

    def kill(self, number: int) -> None:
        self._wanted[number] = False
        self.nodes[number].kill()

    def role(self, number: int) -> str:
        """active, standby, or nothing while the node does not answer."""
        with suppress(AssertionError, OSError, URLError, ConnectionError, TimeoutError):
            return str(self.nodes[number].admin("cluster")["role"])
        return ""

    def active(self) -> int | None:
        """The number of the active node that answers."""
        return next((number for number in range(len(self.nodes)) if self.role(number) == "active"), None)

    def wait_active(self, other_than: int | None = None, timeout: float = 90) -> int:
        found: list[int | None] = []

        def there() -> bool:
            found.append(self.active())
            return found[-1] not in (None, other_than)

        self.wait_until(there, timeout)
        assert found[-1] is not None
        return found[-1]

    def wait_until(self, condition: Callable[[], bool], timeout: float = 90) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            logs = "\n".join(f"{node.folder.name}:\n{node.log_tail(15)}" for node in self.nodes)
            assert time.monotonic() < deadline, f"waited {timeout} s in vain:\n{logs}"
            gevent.sleep(0.05)

    def close(self) -> None:
        self._tending.kill()
        for node in self.nodes:
            node.close()

    def _tend(self) -> None:
        while True:
            for number, node in enumerate(self.nodes):
                if self._wanted[number] and node.child is not None and not node.child.running:
                    node.child.close()
                    self._wanted[number] = False
                    gevent.spawn(self._start_again, number)
            gevent.sleep(0.1)

    def _start_again(self, number: int) -> None:
        # A test that kills it meanwhile, or waits for it, says what it makes of that.
        with suppress(AssertionError):
            self.start(number)


class RoamingConsumer:
    """Reads the commits from one node after the other, each time with the last seq; `times` are when they came."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.urls = list(urls)
        self.seqs: list[int] = []
        self.revs: dict[str, list[str]] = {}
        self.others = 0
        self.times: list[float] = []
        self._greenlet = gevent.spawn(self._run)

    def _run(self) -> None:
        http = GuardedHttp(SERVER, allow_insecure=True)
        turn = 0
        while True:
            turn += 1
            endpoint = parse_endpoint(self.urls[turn % len(self.urls)])
            path = f"{PATH}?cursor={self.seqs[-1] if self.seqs else 0}"
            try:
                with closing(dial(http, endpoint, path, Timing(dial=2.0), relay=True)) as stream:
                    while found := stream.receive(2.0):
                        for message in found:
                            assert isinstance(message, bytes)
                            self._take(message)
            except StreamEnded:
                gevent.sleep(0.05)

    def _take(self, message: bytes) -> None:
        event = frames.decode(message)
        if not isinstance(event, frames.Event):
            return
        self.seqs.append(event.seq)
        self.times.append(time.monotonic())
        if isinstance(event, Commit):
            self.revs.setdefault(event.did, []).append(event.rev)
        else:
            self.others += 1

    def stop(self) -> None:
        self._greenlet.kill()
