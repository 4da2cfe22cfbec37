"""NATS servers with JetStream on loopback, as a cluster of one or three, that can be killed and started again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.child import Child
from tests.support.http import free_ports
from tests.support.proxy import Proxies
from tests.support.tools import tool


class NatsServer:
    """One server, for clients on `port`; the others come by the port `routes[number]`, which leads to `inside`."""

    def __init__(self, folder: Path, number: int, port: int, inside: int, routes: Sequence[int]) -> None:
        self.port = port
        name = f"n{number}"
        self._config = folder / f"{name}.conf"
        self._log = folder / f"{name}.log"
        self._child: Child | None = None
        config = [
            f"server_name: {name}",
            f"listen: 127.0.0.1:{port}",
            "max_payload: 8MB",
            f"jetstream {{ store_dir: {folder / name}, max_memory_store: 16MB, max_file_store: 1GB }}",
        ]
        if len(routes) > 1:
            others = ", ".join(f"nats://127.0.0.1:{route}" for route in routes)
            config.append(
                f"cluster {{ name: relay, listen: 127.0.0.1:{inside}, routes: [{others}], no_advertise: true,"
                f" advertise: 127.0.0.1:{routes[number]} }}"
            )
        self._config.write_text("\n".join(config) + "\n")

    def start(self) -> None:
        program = tool("nats-server")
        assert program is not None, "`make test-setup` installs nats-server"
        self._child = Child([program, "-c", self._config], stderr=self._log)

    def kill(self) -> None:
        assert self._child is not None
        self._child.kill()

    def close(self) -> None:
        if self._child is not None:
            self._child.close()


class NatsServers:
    """The servers, and the ways between them."""

    def __init__(self, folder: Path, count: int) -> None:
        ports = free_ports(3 * count)
        inside, outside = ports[:count], ports[count : 2 * count]
        self.routes = Proxies(inside, outside)
        self.servers = [NatsServer(folder, n, ports[2 * count + n], inside[n], outside) for n in range(count)]

    def close(self) -> None:
        for server in self.servers:
            server.close()
        self.routes.close()


@contextmanager
def nats_servers(folder: Path, count: int) -> Iterator[NatsServers]:
    """So many servers, started; which of them leads is settled by those who ask."""
    folder.mkdir(parents=True, exist_ok=True)
    made = NatsServers(folder, count)
    try:
        for server in made.servers:
            server.start()
        yield made
    finally:
        made.close()
