"""Who serves the JSON stream of the comparison: the relay itself, an edge behind it, or Jetstream behind it.

All are behind the same relay of ours on an empty SQLite file, which is one of `tests.bench.peers` with its limits
lifted. Jetstream is the original server, whose flags these are; its binary is the operator's. Used by `rounds`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.bench.network.measure import Fleet
from tests.bench.network.processes import Usage, tree_usage
from tests.bench.peers.contestant import Contestant
from tests.support.child import Child
from tests.support.http import free_ports
from tests.support.relay_process import RELAY, RelayProcess

# So many events a second for all consumers of one address, which in this bench is all of them.
JETSTREAM_RATE = "1000000000"
START_SECONDS = 30


class Relay:
    """A relay that serves the JSON stream itself; and what every contender begins with."""

    settings: Mapping[str, str] = {"RELAY_JSON_STREAM": "true"}

    def __init__(self, folder: Path, plc: str) -> None:
        self.folder = folder
        self.relay = Contestant([RELAY, "serve"], self.settings, folder / "relay", plc)

    def start(self, fleet: Fleet) -> None:
        """Start, with all hosts of the fleet connected."""
        self.relay.start_with(fleet)

    @property
    def url(self) -> str:
        """Where the JSON stream is served."""
        return self.relay.url

    def usage(self) -> Usage:
        """What the process that serves it uses."""
        return self.relay.usage()

    def close(self) -> None:
        self.relay.close()


class Edge(Relay):
    """An edge behind a relay that serves none."""

    settings: Mapping[str, str] = {}

    def __init__(self, folder: Path, plc: str) -> None:
        super().__init__(folder, plc)
        settings = {
            "RELAY_MODE": "edge",
            "RELAY_EDGE_UPSTREAM": self.relay.url,
            "RELAY_JSON_STREAM": "true",
            "RELAY_MAX_CONSUMERS_PER_ADDRESS": "2000",
            "LOG_LEVEL": "warn",
        }
        self._edge = RelayProcess(folder / "edge", settings)

    def start(self, fleet: Fleet) -> None:
        super().start(fleet)
        self._edge.start()
        self._edge.wait_metric("relay_edge_connected", 1)

    @property
    def url(self) -> str:
        return self._edge.url

    def usage(self) -> Usage:
        assert self._edge.child
        return tree_usage(self._edge.child.process.pid)

    def close(self) -> None:
        self._edge.close()
        super().close()


class Jetstream(Relay):
    """Jetstream behind a relay that serves none."""

    settings: Mapping[str, str] = {}

    def __init__(self, binary: Path, folder: Path, plc: str) -> None:
        super().__init__(folder, plc)
        self._jetstream = JetstreamProcess(binary, folder / "jetstream", self.relay.process)

    def start(self, fleet: Fleet) -> None:
        super().start(fleet)
        self._jetstream.start()

    @property
    def url(self) -> str:
        return self._jetstream.url

    def usage(self) -> Usage:
        return self._jetstream.usage()

    def close(self) -> None:
        self._jetstream.close()
        super().close()


class JetstreamProcess:
    """The original server of Jetstream as a process behind `relay`, which must have no consumer yet."""

    def __init__(self, binary: Path, folder: Path, relay: RelayProcess) -> None:
        port, metrics_port = free_ports(2)
        self.url = f"http://127.0.0.1:{port}"
        self._address = ("127.0.0.1", port)
        self._relay = relay
        self._folder = folder
        self._command: list[str | Path] = [
            binary,
            f"--ws-url={relay.firehose}",
            f"--listen-addr=127.0.0.1:{port}",
            f"--metrics-listen-addr=127.0.0.1:{metrics_port}",
            f"--data-dir={folder}",
            f"--max-sub-rate={JETSTREAM_RATE}",
            # It ends when nothing comes for as long.
            "--liveness-ttl=1h",
        ]
        self._child: Child | None = None

    def start(self) -> None:
        """Start, and wait until it follows the relay and serves. Raises AssertionError when it does not."""
        self._folder.mkdir(parents=True)
        self._child = child = Child(self._command, cwd=self._folder, stderr=self._folder / "errors")
        self._relay.wait_metric("relay_consumers", 1)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert child.running, f"Jetstream did not start: {child.lines[-5:]}"
            with suppress(ConnectionRefusedError), socket.create_connection(self._address, timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError("Jetstream does not listen")

    def usage(self) -> Usage:
        assert self._child
        return tree_usage(self._child.process.pid)

    def close(self) -> None:
        if self._child:
            self._child.close()


def jetstream_binary() -> tuple[Path | None, str]:
    """Jetstream's binary, which JETSTREAM names, and what it was built from; None and why it is not there."""
    named = os.environ.get("JETSTREAM")
    if not named:
        return None, "JETSTREAM names no binary of Jetstream"
    binary = Path(named).resolve()
    if not os.access(binary, os.X_OK) or not binary.is_file():
        return None, f"{named} cannot be run"
    asked = subprocess.run([binary, "--help"], capture_output=True, text=True, timeout=60, check=False)
    if "--ws-url" not in asked.stdout:
        return None, f"{named} is not the original Jetstream: it has no flag --ws-url"
    if not shutil.which("go"):
        return binary, "Jetstream, of unknown version"
    shown = subprocess.run(["go", "version", "-m", binary], capture_output=True, text=True, check=False).stdout
    words = [line.split("\t") for line in shown.splitlines()]
    module = next((" ".join(line[2:4]) for line in words if line[1:2] == ["mod"]), "unknown")
    return binary, f"{module}, {shown.partition(chr(10))[0].rpartition(' ')[2]}"
